"""The overview and the settings, as text."""

from __future__ import annotations

import html
import logging
import re
from typing import TYPE_CHECKING

import pytest
from parts.listed_traces import trace
from parts.page_server import NOW, PageServer, page_server

from relay.core.quantities import duration, size
from relay.core.trace import TraceOutcome
from relay.page.plot import build_plot, nice_top, start_of
from relay.page.text import count, share, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOSTILE = "x\x1b[31m\x00\u202e\u2066\r\"><script>alert(1)</script>'&"
SHOWN = "x\\x1b[31m\\x00\\u202e\\u2066\\r&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;"


@pytest.fixture
async def page() -> AsyncIterator[PageServer]:
    async with page_server() as started:
        yield started


def words(text: str) -> str:
    """The text of a page, without tags, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


async def test_figures_and_plots_count_recipients_of_the_last_hour_and_day(page: PageServer) -> None:
    page.traces.traces += [
        trace(1, NOW - 30, TraceOutcome.FORWARDED, TraceOutcome.SUPPRESSED),
        trace(2, NOW - 1800, TraceOutcome.FORWARDED, TraceOutcome.FORWARDED, TraceOutcome.RCPT_REFUSED),
        trace(3, NOW - 7200, TraceOutcome.SUPPRESSED, TraceOutcome.DEFERRED),
        trace(4, NOW - 90000, TraceOutcome.UNCERTAIN),
    ]
    text = words((await page.get("/"))[1])
    assert "Suppressed, last hour 25.0 % 1 of 4 recipients" in text
    assert "Suppressed, last day 33.3 % 2 of 6 recipients" in text
    assert "Outcome Last hour Last day forwarded 3 3 suppressed 1 2 deferred 0 1 refused at RCPT 1 1" in text
    assert "Waiting now 2 messages" in text
    assert "uncertain" not in text
    _, source = await page.get("/")
    assert 'aria-label="Recipients in the last hour: 3 forwarded, 1 suppressed, 1 refused at RCPT"' in source
    assert re.search(r"<title>14:12 to 14:13 UTC: 1 forwarded, 1 suppressed</title>", source)


async def test_no_share_is_shown_if_only_repeats_leave_traces() -> None:
    async with page_server(flags={"record.trace": "repeats"}) as page:
        page.traces.traces.append(trace(1, NOW - 60, TraceOutcome.SUPPRESSED))
        text = " ".join(re.sub(r"<[^>]+>", "", (await page.get("/"))[1]).split())
    assert "Suppressed, last hour 1 recipient; no share, because only repeats leave a trace" in text
    assert "other mail is not counted here" in text
    assert "100 %" not in text


async def test_states_say_what_to_do(page: PageServer) -> None:
    assert "Mail flows" in words((await page.get("/"))[1])
    page.ready = False
    page.parts |= {"upstream": "down", "store": "degraded", "upstreams": {"a:25": "down", "b:25": "up"}}
    text = words((await page.get("/"))[1])
    for words_ in ("Mail cannot flow", "Upstream a:25 down", "b:25 up", "Clients receive 451", "store does not answer"):
        assert words_ in text


async def test_a_trace_store_that_fails_leaves_the_rest(page: PageServer) -> None:
    page.traces.broken = "disk I/O error <b>"
    status, text = await page.get("/")
    assert status == 200
    assert "The trace cannot be read now: disk I/O error &lt;b&gt;. Mail does not depend on it." in text
    assert "<svg" not in text


async def test_rules_and_warnings_are_shown_newest_and_most_frequent_first(page: PageServer) -> None:
    counters = page.metrics._repeats
    for (_, outcome), counter in counters.items():
        counter.inc(3 if outcome == "suppressed" else 1)
    for age, message in ((60, "the first"), (0, HOSTILE)):
        values = {"msg": message, "levelno": logging.WARNING, "levelname": "WARNING", "created": NOW - age}
        page.warnings.handle(logging.makeLogRecord(values))
    _, source = await page.get("/")
    assert "default 3 1" in words(source)
    assert source.index("script&gt;") < source.index("the first")
    assert "<script>alert" not in source
    assert not {"\x1b", "\x00", "\u202e", "\r"} & set(source)


async def test_settings_are_shown_with_sources_and_masked() -> None:
    url = "redis://:topsecret@192.0.2.1"
    flags = {"--upstream": "smtps://user@mail.example.com", "limits.sessions": "7"}
    environ = {"RELAY_STORE__URL": url, "RELAY_UPSTREAM__PASSWORD": "topsecret"}
    async with page_server(flags=flags, environ=environ) as page:
        _, source = await page.get("/settings")
    assert "topsecret" not in source
    text = words(source)
    assert 'url "smtps://user@mail.example.com:465" flag --upstream' in text
    assert "sessions 7 flag --set Largest number of client connections" in text
    assert "environment RELAY_STORE__URL" in text
    assert text.index("[listen]") < text.index("[upstream]") < text.index("[log]")


def test_foreign_text_is_visible_and_escaped() -> None:
    from relay.page.rendering import build_environment

    template = build_environment().from_string("{{ text }}")
    assert template.render(text=HOSTILE) == SHOWN
    assert visible("Zürich 東京 שלום\n\t") == "Zürich 東京 שלום\n\t"
    assert (
        visible("東京\u3000駅 Prix\u00a0: 3\u2009\u20ac\u2028\u00ad")
        == "東京\u3000駅 Prix\u00a0: 3\u2009\u20ac\\u2028\\xad"
    )


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (7, 8), (9, 10), (11, 20), (59, 60), (601, 800)])
def test_the_upper_edge_of_a_plot_is_a_round_number(most: int, top: int) -> None:
    assert nice_top(most) == top


def test_the_last_bar_contains_the_present() -> None:
    start = start_of(NOW, 60, 60.0)
    plot = build_plot([], start, 60, 60.0)
    assert plot.bars[-1].start <= NOW < plot.bars[-1].end
    assert all(bar.start % 60 == 0 for bar in plot.bars)


def test_numbers_have_units() -> None:
    assert [duration(each) for each in (0, 0.034, 1.5, 34, 90, 7200, 200000)] == [
        *("0 s", "34 ms", "1.5 s", "34 s", "1.5 min", "2 h", "2.3 d")
    ]
    assert [size(each) for each in (12, 1536, 5 * 1024**2)] == ["12 B", "1.5 KiB", "5 MiB"]
    assert [share(*each) for each in ((0, 0), (0, 4), (1, 3), (3, 3))] == ["none", "0 %", "33.3 %", "100 %"]
    assert count(1234567) == "1,234,567"
