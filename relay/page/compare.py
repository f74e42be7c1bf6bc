"""Feedback on two messages: that they should have been one. Shows why they were not, and which ignores would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from relay.explain.differences import location_of
from relay.page.access import Refused
from relay.page.advice import Pair, advise, contents_of, digests, reasons
from relay.page.kept import kept_copy
from relay.page.message import find_message
from relay.page.pasted import NAMES, Pasted, PastedError, read_pasted
from relay.page.trial import LARGEST, MOST_FIELDS
from relay.settings.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.page.advice import Advice
    from relay.page.site import Site

_LONGEST_ID = 100
"""Characters."""


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the routes of the comparison."""

    async def get(request: web.Request) -> web.Response:
        pair = await _pair(site, [request.query.get(name, "") for name in NAMES])
        both_kept = all(kept.copy for kept in pair.kept.values())
        return _page(site, request, pair, Pasted(), advice=await _advise(site, pair, Pasted()) if both_kept else None)

    async def post(request: web.Request) -> web.Response:
        form = await request.post()
        pair = await _pair(site, [str(form.get(f"{name}_id", "")) for name in NAMES])
        pasted = Pasted()
        try:
            pasted = read_pasted(form, least=0)
            advice = await _advise(site, pair, pasted)
        except PastedError as error:
            return _page(site, request, pair, pasted, problem=str(error), status=400)
        return _page(site, request, pair, pasted, advice=advice)

    return [web.get("/compare", site.guard.protect(get)), web.post("/compare", site.guard.protect(post))]


async def _advise(site: Site, pair: Pair, pasted: Pasted) -> Advice:
    contents, envelope = contents_of(pair, pasted)
    settings, judge, clock = site.sources.loaded().settings, site.sources.judge(), site.sources.clock
    return await site.work(lambda: advise(settings, judge, contents, envelope, clock))


async def _pair(site: Site, written: Iterable[str]) -> Pair:
    """Returns the two messages. Raises `Refused` if one is not known, or if both are the same."""
    settings = site.sources.loaded().settings
    stay = f"Traces stay for {format_duration(settings.record.keep_for)} (record.keep_for)."
    traces = {}
    for each in written:
        name = each.strip().lower()[:_LONGEST_ID]
        shown = await find_message(site.sources, name)
        if shown is None:
            raise Refused(f'There is no trace of "{name}".', f"Write the id of a message. {stay}", status=404)
        traces[name] = shown.trace
    if len(traces) == 1:
        raise Refused("Both ids are the same.", "Write the id of another message.", status=400)
    first, second = sorted(traces.values(), key=lambda trace: trace.at)
    return Pair(first, second, {"first": await kept_copy(site, first.id), "second": await kept_copy(site, second.id)})


def _page(
    site: Site,
    request: web.Request,
    pair: Pair,
    pasted: Pasted,
    *,
    advice: Advice | None = None,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    settings = site.sources.loaded().settings
    return site.renderer.page(
        request,
        "compare.html",
        status=status,
        pair=pair,
        reasons=[*reasons(pair, settings)],
        digests=[*digests(pair)],
        pasted=pasted,
        advice=advice,
        trial=advice and advice.trial,
        problem=problem,
        largest=LARGEST,
        most_fields=MOST_FIELDS,
        location_of=location_of,
        keeps=settings.record.keep is not None,
    )
