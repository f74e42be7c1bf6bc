"""Which messages form the story of one mail, and its time line."""

from collections.abc import Sequence

import pytest

from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome, TracePage, TraceQuery
from relay.trace.story import find_stories
from relay.trace.timeline import timeline

AT = 1_764_324_000.0


def trace(id_: str, at: float = 0.0, *, repeats: Sequence[str] = (), outcome: str = "forwarded") -> Trace:
    recipients = tuple(
        RecipientTrace(
            f"user{number}@example.org",
            TraceOutcome.SUPPRESSED,
            "250 2.0.0 Ok",
            "default",
            "v4:aa",
            34.0,
            Original(original, f"<{original}@example.org>", "250 2.0.0 Ok", AT),
        )
        for number, original in enumerate(repeats)
    ) or (RecipientTrace("user0@example.org", TraceOutcome(outcome), "250 2.0.0 Ok"),)
    return Trace(
        id=id_,
        at=AT + at,
        seconds=0.5,
        host="mx1",
        peer="192.0.2.1",
        helo="app",
        login="",
        sender="",
        message_id=f"<{id_}@example.org>",
        subject="",
        size=100,
        upstream="127.0.0.1:25",
        reply="250 2.0.0 Ok",
        recipients=recipients,
        steps={Step.UPLOAD: 1.0},
    )


class Traces:
    """Some traces, found by id and by the ids of what they repeat."""

    def __init__(self, *traces: Trace) -> None:
        self._traces = sorted(traces, key=lambda each: -each.at)

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        assert not start
        found = [
            each
            for each in self._traces
            if each.id in query.ids
            or query.names & {each.id, *(to.original.id for to in each.recipients if to.original)}
        ]
        return TracePage(tuple(found[:limit]), "more" if len(found) > limit else "")


def ids(stories: Sequence[Sequence[Trace]]) -> list[list[str]]:
    return [[each.id for each in story] for story in stories]


async def test_story_of_the_first_copy_holds_its_repeats_in_their_order() -> None:
    traces = Traces(trace("b", 34, repeats=["a"]), trace("a"), trace("c", 70, repeats=["a"]), trace("x", 1))
    found = await find_stories(traces, TraceQuery(names=frozenset({"a"})))
    assert ids(found.stories) == [["a", "b", "c"]]


async def test_story_of_a_repeat_holds_its_original_and_the_other_repeats() -> None:
    traces = Traces(trace("b", 34, repeats=["a"]), trace("a"), trace("c", 70, repeats=["a"]))
    found = await find_stories(traces, TraceQuery(names=frozenset({"c"})))
    assert ids(found.stories) == [["a", "b", "c"]]


async def test_repeat_of_an_original_without_trace_has_a_story() -> None:
    found = await find_stories(Traces(trace("b", repeats=["gone"])), TraceQuery(names=frozenset({"b"})))
    assert ids(found.stories) == [["b"]]


async def test_two_repeats_of_an_original_without_trace_are_one_story() -> None:
    traces = Traces(trace("b", repeats=["gone"]), trace("c", 3, repeats=["gone"]))
    found = await find_stories(traces, TraceQuery(names=frozenset({"b"})))
    assert ids(found.stories) == [["b", "c"]]


async def test_message_that_repeats_two_others_joins_their_stories() -> None:
    traces = Traces(trace("a"), trace("b", 1), trace("c", 2, repeats=["a", "b"]))
    found = await find_stories(traces, TraceQuery(names=frozenset({"c"})))
    assert ids(found.stories) == [["a", "b", "c"]]


async def test_repeat_that_began_before_its_original_is_in_the_same_story() -> None:
    traces = Traces(
        trace("a", 2), trace("b", repeats=["a"]), trace("c", 1, repeats=["a"]), trace("d", 3, repeats=["a"])
    )
    found = await find_stories(traces, TraceQuery(names=frozenset({"b"})))
    assert ids(found.stories) == [["b", "c", "a", "d"]]


async def test_stories_are_in_the_order_of_their_last_copies() -> None:
    traces = Traces(trace("a"), trace("b", 5), trace("c", 9, repeats=["a"]))
    found = await find_stories(traces, TraceQuery(names=frozenset({"a", "b"})))
    assert ids(found.stories) == [["b"], ["a", "c"]]


async def test_search_says_that_there_is_more() -> None:
    traces = Traces(*(trace(str(number), number, repeats=["a"]) for number in range(5)))
    found = await find_stories(traces, TraceQuery(names=frozenset({"a"})), most=3)
    assert found.more
    assert ids(found.stories) == [["2", "3", "4"]]


@pytest.mark.parametrize("name", ["a", "3", "9"])
async def test_first_copy_and_the_one_searched_for_are_shown_although_there_are_more_copies_than_are_read(
    name: str,
) -> None:
    traces = Traces(trace("a"), *(trace(str(number), 1 + number, repeats=["a"]) for number in range(10)))
    found = await find_stories(traces, TraceQuery(names=frozenset({name})), most=3)
    assert ids(found.stories) == [sorted({name, "7", "8", "9"} - {"a"} | {"a"}, key=lambda each: (each != "a", each))]
    assert found.more


def test_time_line_has_an_event_for_the_arrival_and_one_for_each_decision() -> None:
    first, second = trace("a"), trace("b", 34, repeats=["a", "a"])
    both = timeline([first, second])
    assert [(event.at - AT, event.trace.id, event.outcome, len(event.recipients)) for event in both] == [
        (0.0, "a", None, 0),
        (1.5, "a", TraceOutcome.FORWARDED, 1),
        (34.0, "b", None, 0),
        (35.5, "b", TraceOutcome.SUPPRESSED, 2),
    ]
    assert both[-1].after == 35.5


def test_recipients_with_different_replies_have_events_of_their_own() -> None:
    whole = trace("a")
    other = whole.recipients[0]._replace(recipient="b@example.org", reply="550 5.1.1 unknown")
    events = timeline([whole._replace(recipients=(*whole.recipients, other))])
    assert [event.recipients[0].reply for event in events[1:]] == ["250 2.0.0 Ok", "550 5.1.1 unknown"]
