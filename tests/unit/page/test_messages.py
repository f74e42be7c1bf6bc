"""The list of messages and the page of one message, as text."""

from __future__ import annotations

import asyncio
import html
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from multidict import MultiDict
from parts.listed_traces import ListedTraces, trace
from parts.mail_stories import COPY, FIRST, HOSTILE, HOSTILE_SHOWN, REFUSED, hostile_mail, mail_with_copies
from parts.page_server import NOW, PageServer, page_server

from relay.core.claim import Original
from relay.core.trace import TraceOutcome, TracePage, TraceQuery
from relay.page.message import MOST_EVENTS, MOST_ORIGINALS, step_times
from relay.page.message_search import read_search
from relay.page.messages import MOST_ROWS
from relay.page.sources import MOST_SEARCHES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LAST_HOUR = {"period": "hour"}


@pytest.fixture
async def page() -> AsyncIterator[PageServer]:
    async with page_server() as started:
        yield started


def words(text: str) -> str:
    """The text of a page, without tags, on one line."""
    return re.sub(r" (?=[.,;:])", "", " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()))


def rows(text: str) -> list[str]:
    """The ids of the rows, in their order."""
    return re.findall(r'<a href="/messages/([0-9a-f]{12})">', text)


# The list


async def test_the_newest_messages_come_first_with_their_outcomes(page: PageServer) -> None:
    page.traces.traces += [
        trace(1, NOW - 60, TraceOutcome.FORWARDED, TraceOutcome.FORWARDED, TraceOutcome.REFUSED),
        trace(2, NOW - 30, TraceOutcome.SUPPRESSED, subject="Your digest"),
        trace(3, NOW - 90, sender="", reply=""),
    ]
    status, text = await page.get("/messages")
    assert (status, rows(text)) == (200, ["000000000002", "000000000001", "000000000003"])
    shown = words(text)
    assert "3 messages. Recipients: forwarded 2 suppressed 1 refused 1" in shown
    assert "000000000001 forwarded 2 refused 1 contact@videos.example 192.0.2.7 4 KiB default 250 2.0.0" in shown
    assert "000000000002 Your digest suppressed 1" in shown
    assert "000000000003 none <> 192.0.2.7" in shown


async def test_one_box_finds_ids_message_ids_queue_ids_and_addresses(page: PageServer) -> None:
    hashed = page.pseudonyms("carol@example.org")
    page.traces.traces += [
        trace(1, NOW - 60, TraceOutcome.FORWARDED, message_id="first@videos.example", sender=hashed),
        trace(2, NOW - 30, TraceOutcome.SUPPRESSED),
    ]
    for text in ("000000000001", "<first@videos.example>", "first@videos.example", "Carol@EXAMPLE.org", hashed):
        assert rows((await page.get("/messages", params={"q": text}))[1]) == ["000000000001"], text


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"outcome": "refused"}, [3]),
        ([("outcome", "refused"), ("outcome", "suppressed")], [2, 3]),
        ({"rule": "other"}, [4]),
        ({"period": "hour"}, [1, 2]),
        ({"period": "day"}, [1, 2, 3]),
        ({"period": "week"}, [1, 2, 3, 4]),
        ({"since": "2026-09-19T00:00", "until": "2026-09-21T14:00"}, [2, 3, 4]),
        ({"since": "2026-09-21 14:13:10", "period": "hour"}, [1]),
        ({"outcome": "nonsense", "period": "nonsense", "unknown": "x"}, [1, 2, 3, 4, 5]),
    ],
)
async def test_filters(page: PageServer, fields: dict[str, str] | list[tuple[str, str]], found: list[int]) -> None:
    ages = {1: 5.0, 2: 1800.0, 3: 7200.0, 4: 2 * 86400.0, 5: 30 * 86400.0}
    outcomes = {2: TraceOutcome.SUPPRESSED, 3: TraceOutcome.REFUSED}
    for number, age in ages.items():
        one = trace(number, NOW - age, outcomes.get(number, TraceOutcome.FORWARDED))
        if number == 4:
            one = one._replace(recipients=(one.recipients[0]._replace(rule="other"),))
        page.traces.traces.append(one)
    assert rows((await page.get("/messages", params=fields))[1]) == [f"{number:012x}" for number in found]


async def test_the_address_holds_the_question_on_every_page(page: PageServer) -> None:
    page.traces.traces += [trace(number, NOW - number, TraceOutcome.FORWARDED) for number in range(2 * MOST_ROWS + 1)]
    fields = [("q", "contact@videos.example"), ("outcome", "forwarded"), ("outcome", "refused"), ("period", "day")]
    page.pseudonyms = type(page.pseudonyms)(b"", plain=True)
    _, text = await page.get("/messages", params=fields)
    seen = rows(text)
    while older := re.search(r'<a href="([^"]+)" rel="next">', text):
        path = html.unescape(older[1])
        asked = parse_qs(urlsplit(path).query)
        assert asked.pop("start")
        assert asked == {"q": [fields[0][1]], "outcome": ["forwarded", "refused"], "period": ["day"]}
        _, text = await page.get(path)
        seen += rows(text)
    assert seen == [f"{number:012x}" for number in range(2 * MOST_ROWS + 1)]
    assert 'value="contact@videos.example"' in text
    assert text.count(" checked>") == 2
    assert set(page.traces.limits) == {MOST_ROWS}


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, "No message yet. Send one to 127.0.0.1:2525"),
        ({"q": "nobody@example.org"}, "No message matches. Show all, or search for less"),
        ({"start": "100"}, "No older messages."),
    ],
)
async def test_an_empty_list_says_what_to_do(page: PageServer, fields: dict[str, str], answer: str) -> None:
    status, text = await page.get("/messages", params=fields)
    assert (status, answer in words(text)) == (200, True)


async def test_an_empty_list_names_the_setting_that_keeps_it_empty() -> None:
    async with page_server(flags={"record.trace": "repeats"}) as page:
        assert "No repeat yet, and other messages leave no trace (record.trace)" in (
            words((await page.get("/messages"))[1]).replace("( ", "(").replace(" )", ")")
        )
        for path in ("/messages?q=nobody", f"/messages/{FIRST}"):
            assert "record.trace" in (await page.get(path))[1]


async def test_a_trace_store_that_fails_or_hangs_is_told(page: PageServer) -> None:
    page.traces.broken = "disk I/O error <b>"
    for path in ("/messages", f"/messages/{FIRST}"):
        status, text = await page.get(path)
        assert (status, "The trace cannot be read now: disk I/O error &lt;b&gt;" in text) == (503, True)


class HangingTraces(ListedTraces):
    """A store that does not answer."""

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        await asyncio.Event().wait()
        return await super().find(query, limit, start)


async def test_a_question_takes_no_longer_than_allowed() -> None:
    async with page_server(traces=HangingTraces(), longest_query=0.01) as page:
        for path in ("/messages", f"/messages/{FIRST}"):
            status, text = await page.get(path)
            assert (status, "did not answer within 0.01 s" in text) == (503, True)


class SlowTraces(ListedTraces):
    """A store that lets other tasks run before each answer, and counts the searches that run at once."""

    running = most = 0

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(100):
            await asyncio.sleep(0)
        self.running -= 1
        return await super().find(query, limit, start)


async def test_searches_at_once_are_bounded() -> None:
    traces = SlowTraces(*mail_with_copies(NOW - 100))
    async with page_server(traces=traces) as page:
        answers = await asyncio.gather(*(page.get(path) for path in ("/messages", f"/messages/{FIRST}") * 5))
    assert {status for status, _ in answers} == {200}
    assert traces.most == MOST_SEARCHES


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"since": "yesterday"}, "From: not a time"),
        ({"since": "2026-09-21 14:13", "until": "2026-09-21 14:12"}, "From is not before To."),
        ({"until": "2026-13-01"}, "To: not a time"),
        ({"q": "x" * 1001}, "longer than 1,000 characters"),
    ],
)
async def test_wrong_fields_are_told_and_nothing_is_asked(
    page: PageServer, fields: dict[str, str], problem: str
) -> None:
    status, text = await page.get("/messages", params=fields)
    assert (status, problem in words(text), page.traces.limits) == (400, True, [])


def test_fields_of_an_address_are_bounded() -> None:
    search = read_search(MultiDict({"rule": "r" * 9999, "q": "q" * 9999}))
    assert (len(search.rule), len(search.text)) == (200, 1000)


async def test_damaged_traces_are_counted(page: PageServer) -> None:
    page.traces.traces.append(trace(1, NOW, TraceOutcome.FORWARDED))
    page.traces.damaged = 2
    assert "2 damaged traces are left out" in words((await page.get("/messages"))[1])


# One message


async def test_the_time_line_of_a_mail_and_its_copies(page: PageServer) -> None:
    page.traces.traces += mail_with_copies(NOW - 100)
    for own in (FIRST, COPY, REFUSED):
        status, text = await page.get(f"/messages/{own}")
        assert status == 200
        line = words(text[text.index('id="timeline-title"') :])
        steps = [
            "Time line of 3 copies",
            "came in from 192.0.2.7",
            "forwarded for 1 recipient: user0@example.org Rule default. Reply: 250 2.0.0 Ok: queued as 4XYZ12",
            "+35 s",
            "suppressed for 1 recipient: user0@example.org Repeats 0000000000a1, accepted 34 s before. Rule default.",
            "+1.6 min",
            "refused for 1 recipient: user9@example.org Rule default. Reply: 550 5.1.1 no such user",
            "would be suppressed for 1 recipient: user1@example.org",
        ]
        places = [line.index(step) for step in steps]
        assert places == sorted(places)
        assert set(rows(text)) == {FIRST, COPY, REFUSED} - ({own} if own != FIRST else set())


async def test_a_repeat_is_shown_beside_its_original(page: PageServer) -> None:
    page.traces.traces += mail_with_copies(NOW - 100)
    shown = words((await page.get(f"/messages/{COPY}"))[1])
    assert "Beside its original 0000000000a1" in shown
    assert "Message-ID <second@videos.example> <first@videos.example> yes, and did not count" in shown
    assert "Size 4 KiB (4,100 B) 4 KiB (4,096 B) yes, and did not count" in shown
    assert "Client 192.0.2.7 192.0.2.7 no" in shown
    assert "HELO other.example.com app.example.com yes" in shown
    assert "Equal in Subject 1c9f03a2 From 77aa0011 text 0badcafe Ignored avideo: image cache" in shown
    assert "Why it is a repeat" not in words((await page.get(f"/messages/{FIRST}"))[1])


async def test_an_original_without_a_trace_is_shown_as_far_as_it_is_known(page: PageServer) -> None:
    page.traces.traces += mail_with_copies(NOW - 100)[1:]
    shown = words((await page.get(f"/messages/{COPY}"))[1])
    assert "There is no trace of the original any more." in shown
    assert "Message-ID <second@videos.example> <first@videos.example> yes" in shown
    assert "Size 4 KiB (4,100 B) not known not known" in shown


async def test_copies_that_repeat_many_others_are_shown_in_part(page: PageServer) -> None:
    originals = [trace(number, NOW - 100, TraceOutcome.FORWARDED) for number in range(100)]
    repeats = tuple(
        mail_with_copies(NOW)[1].recipients[0]._replace(original=Original(each.id, "<x@y>", "250 Ok", NOW - 90))
        for each in originals
    )
    copies = [trace(500 + number, NOW - 50 + number, recipients=repeats) for number in range(10)]
    page.traces.traces += [*originals, *copies]
    _, text = await page.get(f"/messages/{copies[-1].id}")
    assert text.count("Beside its original") == MOST_ORIGINALS
    assert "It repeats 80 further messages, each for other recipients." in words(text)
    timeline = text.partition('<ol class="timeline">')[2].partition("</ol>")[0]
    assert timeline.count("<li ") == MOST_EVENTS
    assert timeline.count("this message") == 101
    assert "There is more than can be shown here." in words(text)


async def test_steps_have_times_and_bars(page: PageServer) -> None:
    page.traces.traces += mail_with_copies(NOW - 100)
    shown = words((await page.get(f"/messages/{COPY}"))[1])
    assert "Steps upload 10 ms store 5 ms wait for an equal message 20 ms" in shown
    steps = step_times(page.traces.traces[1])
    assert [(round(each.x), round(each.width)) for each in steps] == [(0, 29), (29, 14), (43, 57)]


@pytest.mark.parametrize("name", ["0000000000ff", "nonsense", "%3Cscript%3E", "0" * 500])
async def test_an_unknown_id_says_how_long_traces_stay(page: PageServer, name: str) -> None:
    page.traces.traces += mail_with_copies(NOW - 100)
    status, text = await page.get(f"/messages/{name}")
    assert (status, "Traces stay for 30 d ( record.keep_for )" in words(text), "<script>" in text) == (404, True, False)


async def test_hostile_mails_are_shown_as_text(page: PageServer) -> None:
    page.traces.traces.append(hostile_mail(NOW))
    for path, least in (("/messages", 3), ("/messages/000000000bad", 12), (f"/messages?q={'%22%3E%3Cscript%3E'}", 0)):
        _, text = await page.get(path)
        assert text.count(HOSTILE_SHOWN) >= least
        assert not {"\x1b", "\x00", "\u202e", "\u2066", "\r"} & set(text)
        assert "<script>" not in text.replace('<script src="/static/page.js" defer></script>', "")
        assert HOSTILE not in html.unescape(text)


async def test_impossible_times_are_no_fault(page: PageServer) -> None:
    page.now = 1e301
    repeats = tuple(
        each._replace(original=Original(FIRST, "<x@y>", "250 Ok", 1e300))
        for each in mail_with_copies(NOW)[1].recipients
    )
    page.traces.traces.append(trace(7, 1e300, recipients=repeats))
    for path in ("/messages", "/messages/000000000007"):
        status, text = await page.get(path)
        assert (status, text.count("an unknown time") > 1) == (200, True)


async def test_long_values_are_cut_in_the_list(page: PageServer) -> None:
    page.traces.traces.append(trace(1, NOW, TraceOutcome.FORWARDED, sender="s" * 300, reply="r" * 300))
    _, text = await page.get("/messages")
    assert "s" * 41 not in text
    assert "r" * 71 not in text
