"""Feedback on a message: that it was no repeat. It is sent after all, and a rule is offered that exempts its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from relay.core.errors import RelayError
from relay.core.redact import without_addresses
from relay.core.trace import TraceOutcome
from relay.events.records import PAGE_FEEDBACK
from relay.explain.suggested_rule import conditions_of_content, exempting_rule
from relay.page.access import VISITOR, Refused
from relay.page.kept import Kept, kept_copy
from relay.page.message import find_message
from relay.records.selection import Selection
from relay.settings.render import table_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.core.trace import Trace
    from relay.page.commands import Commands
    from relay.page.site import Site

RELEASE = "release"
"""What the field `wanted` says if the button was that for the kept copy."""
_MOST_LINES = 50
"""Answers of the upstream that are shown."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, for people."""

    summary: str
    lines: Sequence[str] = ()
    problems: Sequence[str] = field(default_factory=tuple)


def routes(site: Site) -> Iterable[web.RouteDef]:
    """Returns the route of the feedback."""

    async def post(request: web.Request) -> web.Response:
        shown = await find_message(site.sources, request.match_info["id"])
        if shown is None:
            raise Refused("There is no trace of this message any more.", "Nothing was done.", status=404)
        commands = site.sources.commands()
        if commands is None:
            raise Refused("This process has no commands.", "Use relay release or relay forget.", status=503)
        trace, settings = shown.trace, site.sources.loaded().settings
        kept = await kept_copy(site, trace.id)
        wanted = str((await request.post()).get("wanted", ""))
        done = await _undo(commands, trace, kept, wanted)
        visitor = request[VISITOR]
        user = visitor.user if settings.log.addresses else without_addresses(visitor.user)
        PAGE_FEEDBACK.log(record=trace.id, result=done.summary, peer=visitor.client, user=user)
        rule = exempting_rule(known_of(trace, kept))
        return site.renderer.page(
            request,
            "feedback.html",
            status=409 if done.problems else 200,
            trace=trace,
            done=done,
            rule="\n".join(["[[rules]]", *table_lines(rule)]) if rule else "",
            from_copy=kept.copy is not None,
            keeps=settings.record.keep is not None,
        )

    return [web.post("/messages/{id}/no-repeat", site.guard.protect(post))]


async def _undo(commands: Commands, trace: Trace, kept: Kept, wanted: str) -> Done:
    """Releases the kept copy, or else frees the claims. A form that was sent twice does nothing the second time."""
    suppressed = [to for to in trace.recipients if to.outcome is TraceOutcome.SUPPRESSED]
    if not suppressed:
        return Done("Nothing was withheld, so that nothing was to be done.")
    try:
        if (kept.copy or kept.problem) and not kept.released:
            released = await commands.release_copy(trace.id)
            done = released.done[:1].upper() + released.done[1:] + "."
            return Done(done, [*released.answers, *released.notes][:_MOST_LINES], released.errors)
        if wanted == RELEASE:
            return Done(f"Nothing was done: the kept copy {'was released before' if kept.released else 'is gone'}.")
        keys = frozenset(to.fingerprint for to in suppressed if to.fingerprint)
        number = await commands.forget(Selection(records=frozenset((trace.id,)), keys=keys))
    except RelayError as error:
        return Done("Nothing was done.", problems=[str(each) for each in error.args])
    if not number:
        return Done("Nothing was to be done: no claim is left, so that the next copy goes through.")
    claims = "claim was" if number == 1 else "claims were"
    return Done(f"{number:,} {claims} freed: the next copy goes through. Let the application send the mail again.")


def known_of(trace: Trace, kept: Kept) -> dict[str, str]:
    """Returns what is known of a message, by condition of a rule."""
    known = {"reverse_path": trace.sender, "subject": trace.subject}
    if len(trace.recipients) == 1:
        known["recipient"] = trace.recipients[0].recipient
    if kept.copy:
        known |= {"reverse_path": kept.copy.reverse_path.decode("utf-8", "replace")}
        known |= conditions_of_content(kept.copy.content.plain)
    return known
