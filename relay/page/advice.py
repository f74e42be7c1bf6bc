"""Why two messages were not one repeat, by their traces and contents, and which ignores would make them equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from relay.core.ruling import DEFAULT
from relay.core.trace import TraceOutcome
from relay.explain.suggested_ignores import suggest_ignores
from relay.page.message import split_digest
from relay.page.pasted import NAMES, PastedError
from relay.page.trial import Envelope, analyse, try_messages
from relay.records.kept_copies import KeptCopies
from relay.settings import effective
from relay.settings.render import table_lines
from relay.settings.rules import build_judge
from relay.settings.units import format_duration
from relay.simulate.delivery_fields import without_delivery_fields
from relay.simulate.kept_archive import try_on_kept_copies
from relay.trace.story import originals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from relay.core.trace import Trace
    from relay.explain.message_file import ExplainedMessage
    from relay.judge.judge import Judge
    from relay.page.kept import Kept
    from relay.page.pasted import Pasted
    from relay.page.trial import Trial
    from relay.settings import Settings
    from relay.settings.tables import IgnoreTable
    from relay.simulate.kept_archive import Tried

_ACCEPTED = frozenset((TraceOutcome.FORWARDED, TraceOutcome.SUPPRESSED, TraceOutcome.WOULD_SUPPRESS))


class FieldDigests(NamedTuple):
    """The digest of a compared field in each of two messages; empty if a message has no such field."""

    label: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two messages, the older first."""

    first: Trace
    second: Trace
    kept: Mapping[str, Kept]
    """By name: `first` and `second`."""

    @property
    def traces(self) -> Mapping[str, Trace]:
        """The traces, by name."""
        return dict(zip(NAMES, (self.first, self.second), strict=True))


@dataclass(frozen=True, slots=True)
class Advice:
    """Two contents compared, and the ignores that would make them equal."""

    trial: Trial
    ignores: str
    """As TOML; empty if there are none."""
    would_be_equal: bool
    sentence: str
    """The comparison under the ignores, in one sentence."""
    tried: Tried | None
    """What the ignores would do to the kept copies; None if there are none."""


def reasons(pair: Pair, settings: Settings) -> Iterator[str]:
    """Yields what the traces say about why the second is no repeat of the first, in sentences."""
    first, second = ({to.recipient: to for to in trace.recipients} for trace in (pair.first, pair.second))
    shared = [name for name in first if name in second]
    if not shared:
        yield "No recipient is in both. A message repeats an earlier one only for the same recipient."
        return
    if pair.first.id in originals_of(pair.second):
        yield "The second is a repeat of the first for at least one recipient."
    if pair.second.id in originals_of(pair.first):
        yield "The first is a repeat of the second for at least one recipient: it began earlier, and ended later."
    if not any(first[name].outcome in _ACCEPTED for name in shared):
        yield "The first was not accepted for any recipient of both, so that the second was sent in its place."
    tables = {each.table.name: each.table for each in effective.rules(settings)}
    for rule in dict.fromkeys(second[name].rule for name in shared):
        table = tables.get(rule)
        window = table.window if table and table.window is not None else settings.dedup.window
        gap = pair.second.at - pair.first.at
        if table and table.action == "exempt":
            yield f"The rule {rule} exempts the second: every copy is forwarded."
        elif not table and rule != DEFAULT:
            yield f"The second was exempt, or not judged: {rule or 'no rule is known'}."
        elif gap > window:
            yield (
                f"They came {format_duration(round(gap))} apart, and the window of the rule {rule} is "
                f"{format_duration(window)}."
            )
        elif table and table.repeats == "consecutive":
            yield f"Under the rule {rule} a copy is no repeat after another mail of its sender."


def digests(pair: Pair) -> Iterator[FieldDigests]:
    """Yields the fields that were compared in both messages. Only traces of repeats hold them."""
    rule = next((rule for rule in pair.first.forms if rule in pair.second.forms), None)
    if rule is None:
        return
    first, second = ([split_digest(field) for field in trace.forms[rule]] for trace in (pair.first, pair.second))
    ours, theirs = dict(first), dict(second)
    for label in dict.fromkeys([*ours, *theirs]):
        yield FieldDigests(label, ours.get(label, ""), theirs.get(label, ""))


def contents_of(pair: Pair, pasted: Pasted) -> tuple[list[bytes], Envelope]:
    """Returns the contents to compare: what was pasted, or else the kept copies. Raises `PastedError`."""
    contents, envelope = [], pasted.envelope
    for name in NAMES:
        copy = pair.kept[name].copy
        if name in pasted.by_name:
            # Copies from a mailbox have the fields that the delivery added.
            contents.append(without_delivery_fields(pasted.by_name[name]))
        elif copy:
            contents.append(copy.content.plain)
            if not envelope.recipient:
                envelope = replace(envelope, recipient=copy.paths[0].decode("utf-8", "replace"))
            if not envelope.sender:
                envelope = replace(envelope, sender=f"<{copy.reverse_path.decode('utf-8', 'replace')}>")
        else:
            raise PastedError(f"No copy of {pair.traces[name].id} is kept. Paste its source, or choose its file.")
    return contents, envelope


def advise(
    settings: Settings, judge: Judge, contents: Sequence[bytes], envelope: Envelope, clock: Callable[[], float]
) -> Advice:
    """Compares two contents, and looks for ignores. Takes long for some, so that it runs in a thread."""

    def judge_with(ignores: Sequence[IgnoreTable]) -> Judge:
        further = settings.model_copy(update={"ignore": (*settings.ignore, *ignores)})
        return build_judge(further) if ignores else judge

    def analyse_with(ignores: Sequence[IgnoreTable]) -> list[ExplainedMessage]:
        return analyse(judge_with(ignores), contents, envelope)

    suggestion = suggest_ignores(analyse_with)
    tried = None
    if suggestion.ignores and settings.record.keep is not None:
        copies = KeptCopies(settings.record.keep.path)
        tried = try_on_kept_copies(copies, judge, judge_with(suggestion.ignores), settings.dedup.window, clock)
    return Advice(
        trial=try_messages(judge, contents, envelope),
        ignores="\n\n".join("\n".join(["[[ignore]]", *table_lines(each)]) for each in suggestion.ignores),
        would_be_equal=suggestion.comparison.equal,
        sentence=suggestion.comparison.sentence,
        tried=tried if tried and tried.copies else None,
    )
