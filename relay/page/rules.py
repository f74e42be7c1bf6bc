"""The rules in force, how often each matched, and a box that tries pasted messages against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from relay.core.ruling import DEFAULT
from relay.explain.differences import location_of
from relay.page.pasted import Pasted, PastedError, read_pasted
from relay.page.trial import LARGEST, MOST_FIELDS, try_messages
from relay.settings import effective
from relay.settings.render import table_lines
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.page.site import Site
    from relay.page.sources import Sources
    from relay.page.trial import Trial
    from relay.settings.tables import RuleTable


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule in force, or `default`, and how often it matched since the start."""

    number: int
    name: str
    source: str
    replaces: str
    """The preset whose rule of this name it replaces, or empty."""
    conditions: str
    """The names of its conditions, all of which must hold; empty for `default`."""
    toml: str
    """Its keys other than the name; empty for `default`."""
    action: str
    window: str
    repeats: str
    """Empty if it suppresses nothing."""
    matched: int
    suppressed: int
    would_suppress: int


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the routes of the rules, and of the box below them."""

    async def get(request: web.Request) -> web.Response:
        return _page(site, request, Pasted())

    async def post(request: web.Request) -> web.Response:
        pasted = Pasted()
        try:
            pasted = read_pasted(await request.post())
            trial = await site.work(lambda: try_messages(site.sources.judge(), pasted.contents, pasted.envelope))
        except PastedError as error:
            return _page(site, request, pasted, problem=str(error), status=400)
        return _page(site, request, pasted, trial=trial)

    return [web.get("/rules", site.guard.protect(get)), web.post("/rules", site.guard.protect(post))]


def _page(
    site: Site,
    request: web.Request,
    pasted: Pasted,
    *,
    trial: Trial | None = None,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    return site.renderer.page(
        request,
        "rules.html",
        status=status,
        rules=[*rule_rows(site.sources)],
        ignores=[*_ignores(site.sources)],
        settings=site.sources.loaded().settings,
        pasted=pasted,
        trial=trial,
        problem=problem,
        largest=LARGEST,
        most_fields=MOST_FIELDS,
        location_of=location_of,
    )


def rule_rows(sources: Sources) -> Iterator[RuleRow]:
    """Yields the rules in matching order; `default` is the last."""
    loaded = sources.loaded()
    dedup = loaded.settings.dedup
    matched, repeats = sources.metrics.matched(), sources.metrics.repeats()
    for number, each in enumerate(effective.rules(loaded.settings), start=1):
        table = each.table
        is_exempt = table.action == "exempt"
        window = dedup.window if table.window is None else table.window
        yield RuleRow(
            number=number,
            name=table.name,
            source=f"preset {each.preset}" if each.preset else loaded.provenance.get("rules", ""),
            replaces=each.replaces,
            conditions=", ".join(_condition_names(table)),
            toml="\n".join(line for line in table_lines(table) if not line.startswith("name = ")),
            action=table.action,
            window="" if is_exempt else format_duration(window),
            repeats="" if is_exempt else table.repeats,
            matched=matched.get(table.name, 0),
            suppressed=repeats.get((table.name, "suppressed"), 0),
            would_suppress=repeats.get((table.name, "would_suppress"), 0),
        )
    yield RuleRow(
        number=0,
        name=DEFAULT,
        source="all other messages",
        replaces="",
        conditions="",
        toml="",
        action="dedupe" if dedup.window else "exempt",
        window=format_duration(dedup.window),
        repeats="window" if dedup.window else "",
        matched=matched.get(DEFAULT, 0),
        suppressed=repeats.get((DEFAULT, "suppressed"), 0),
        would_suppress=repeats.get((DEFAULT, "would_suppress"), 0),
    )


def _condition_names(table: RuleTable) -> Iterator[str]:
    for condition in table.conditions():
        yield f"header.{condition.header}" if condition.header else condition.target.value
    for name in ("attachment", "max_recipients"):
        if getattr(table, name) is not None:
            yield name


def _ignores(sources: Sources) -> Iterator[tuple[str, str, str]]:
    """Yields the ignores for all messages: name, source and TOML."""
    loaded = sources.loaded()
    for each in effective.ignores(loaded.settings):
        source = f"preset {each.preset}" if each.preset else loaded.provenance.get("ignore", "")
        yield each.table.label, source, "\n".join(line for line in table_lines(each.table) if line[:7] != "name = ")
