"""The rules page: the rules in force, and the box that tries messages."""

from __future__ import annotations

import html
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from parts.mail_stories import HOSTILE
from parts.page_server import PageServer, page_server

from relay.page.access import Refused
from relay.page.trial import LARGEST
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULES = r"""
[[rules]]
name = "invoices <b>"
subject = '(?i)^invoice\b'
recipient = '@example\.org$'
action = "exempt"

[[rules]]
name = "digests"
subject = '^Your digest'
max_recipients = 3
action = "dedupe"
window = "20h"
repeats = "consecutive"
ignore = [{ text = 'number [0-9]+' }]

[[ignore]]
header = "X-Campaign"
"""
MAIL = (
    "From: Shop <shop@example.com>\r\nSubject: {subject}\r\nDate: {date}\r\nX-Campaign: {date}\r\n\r\n"
    "This is number {number}.\r\n"
)
MONDAY, TUESDAY = "Mon, 21 Sep 2026 10:00:00 +0000", "Tue, 22 Sep 2026 10:00:00 +0000"


def mail(subject: str = "Hello", number: int = 1, date: str = MONDAY) -> str:
    return MAIL.format(subject=subject, date=date, number=number)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[PageServer]:
    settings = tmp_path / "relay.toml"
    settings.write_text(RULES)
    async with page_server(settings_file=settings) as started:
        yield started


def words(text: str) -> str:
    """The text of a page, without tags, on one line."""
    return re.sub(r" (?=[.,;:])", "", " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()))


async def send(page: PageServer, **fields: str | bytes) -> tuple[int, str]:
    """Sends the form as a browser does. Bytes are files."""
    _, source = await page.get("/rules")
    token = re.search(r'name="token" value="([0-9a-f]{64})"', source)
    assert token
    form = aiohttp.FormData({"token": token[1]}, default_to_multipart=True)
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.add_field(name, BytesIO(value), filename=f"{name}.eml")
        else:
            form.add_field(name, value)
    form_data: Any = form
    return await page.post("/rules", form_data)


async def tried(page: PageServer, **fields: str | bytes) -> str:
    """The words of the result."""
    status, text = await send(page, **fields)
    assert status == 200, text
    return words(text[text.index('id="try-title"') :])


# The rules in force


async def test_rules_are_listed_in_order_with_source_conditions_and_action(page: PageServer) -> None:
    status, source = await page.get("/rules")
    text = words(source)
    expected = [
        "1. invoices <b>",
        "exempt subject, recipient",
        r"subject = '(?i)^invoice\b' recipient = '@example\.org$'",
        "2. digests",
        "dedupe, window 20h, consecutive repeats only subject, max_recipients",
        "3. avideo: password recovery preset avideo exempt",
        "default all other messages dedupe, window 10m none: all messages that no rule matches",
        "ignores: what does not count in any message header x-campaign",
    ]
    places = [text.index(each) for each in expected]
    assert (status, places) == (200, sorted(places))
    assert "relay.toml" in text[places[0] : places[1]]
    assert "invoices &lt;b&gt;" in source


async def test_counts_of_rules_are_those_since_the_start(page: PageServer) -> None:
    page.metrics.add_rules(["digests"])
    page.metrics._matched["digests"].inc(1234)
    page.metrics._repeats["digests", "suppressed"].inc(56)  # type: ignore[index]
    page.metrics._repeats["digests", "would_suppress"].inc(7)  # type: ignore[index]
    assert "max_recipients = 3" in (text := words((await page.get("/rules"))[1]))
    assert re.search(r"2\. digests .*? 1,234 56 7 3\. avideo", text)


# The box


async def test_a_message_is_tried_with_what_counts_and_what_is_ignored(page: PageServer) -> None:
    text = await tried(page, first=mail("Your digest"), recipient="ada@example.org", sender="<shop@example.com>")
    assert (
        "The first copy is forwarded; a further one to the same recipient within 20h and before another mail of this "
        "sender is suppressed." in text
    )
    assert "Rule digests subject = ^Your digest, found in: Your digest max_recipients = 3" in text
    assert "for ada@example.org" in text
    assert "Ignored header x-campaign" in text
    assert "text number [0-9]+: number 1" in text
    assert "Subject Your digest" in text
    assert "text This is [ignored]." in text
    assert "what differs" not in text.lower()


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"first": mail("Invoice 1"), "recipient": "ada@example.org"}, "the message is exempt (rule invoices <b>)"),
        ({"first": mail("Invoice 1"), "recipient": "ada@example.net"}, "within 10m is suppressed"),
        ({"first": mail(), "sender": "<>"}, "the message is exempt (null reverse-path)"),
        ({"first": mail()}, "within 10m is suppressed"),
    ],
)
async def test_recipient_and_sender_decide(page: PageServer, fields: dict[str, str], verdict: str) -> None:
    assert verdict in await tried(page, **fields)


async def test_two_messages_are_equal_or_it_is_said_why_not(page: PageServer) -> None:
    equal = await tried(page, first=mail("Your digest", 1), second=mail("Your digest", 2, TUESDAY))
    assert "Equal they differ only in" in equal
    assert (
        f"What differs and does not count What First Second Date {MONDAY} {TUESDAY} X-Campaign {MONDAY} {TUESDAY}"
        in equal
    )
    different = await tried(page, first=mail(number=1), second=mail(number=2, date=TUESDAY))
    assert "Different the text" in different
    assert "What differs and counts the text in part 1 (text/plain) This is number 1 2." in different


async def test_a_file_keeps_every_byte(page: PageServer) -> None:
    content = b"From: a@example.com\nSubject: caf\xe9\n\nbody\xff\n"
    text = await tried(page, first_file=content, first="")
    assert r"caf\xe9" in text
    assert "its lines end with LF" in text


async def test_empty_lines_before_a_pasted_message_are_left_out(page: PageServer) -> None:
    assert "found in: Your digest" in await tried(page, first="\n\r\n" + mail("Your digest"))


async def test_what_was_pasted_is_shown_again(page: PageServer) -> None:
    pasted = f"Subject: {HOSTILE}</textarea>\n\nbody\n"
    _, text = await send(page, first=pasted, recipient='"><b>@example.org')
    assert "</textarea>" not in text.split('id="first"')[1].split("</textarea>")[0]
    assert html.unescape(text.split('name="first"')[1].split(">", 1)[1].split("</textarea>")[0]).strip("\n") == (
        pasted.replace("\r", "\n").strip("\n")
    )
    assert "<script>alert" not in text
    assert 'value="&#34;&gt;&lt;b&gt;@example.org"' in text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "There is no message."),
        ({"first": "\n\n"}, "There is no message."),
        ({"first": "", "second": mail()}, "There is no message."),
        ({"first_file": bytes(LARGEST + 1)}, "larger than 1 MiB. Use relay explain"),
        ({"first": mail(), "second_file": bytes(LARGEST + 1)}, "larger than 1 MiB. Use relay explain"),
    ],
)
async def test_forms_without_a_usable_message(page: PageServer, fields: dict[str, str | bytes], problem: str) -> None:
    status, text = await send(page, **fields)
    assert (status, problem in words(text)) == (400, True), words(text)


async def test_hostile_messages_are_shown_as_text(page: PageServer) -> None:
    body = f"<a href='x'>{HOSTILE}</a>".encode()
    content = b"From: %b\r\nSubject: %b\r\nContent-Type: text/html\r\n\r\n%b\r\n" % (
        HOSTILE.encode(),
        b"x" * 2000,
        body,
    )
    for fields in (
        {"first_file": content},
        {"first_file": content, "second_file": content.replace(b"alert", b"a\x1b")},
    ):
        _, text = await send(page, **fields)
        assert "<script>alert" not in text
        assert not {"\x1b", "\x00", "\u202e", "\u2066", "\r"} & set(text)


async def test_a_trial_needs_the_token_and_stores_nothing(page: PageServer) -> None:
    assert (await page.post("/rules", {"first": mail(), "token": "0" * 64}))[0] == 403
    await tried(page, first=mail("Your digest"))
    assert page.traces.traces == []
    assert not any(page.metrics.matched().values())


async def test_a_trial_takes_no_longer_than_allowed(page: PageServer) -> None:
    page.site._thread.close()
    page.site._thread = Executor("page", 0, 0.01)
    with pytest.raises(Refused, match="takes longer"):
        await page.site.work(lambda: 1)
    status, text = await send(page, first=mail())
    assert (status, "This takes longer than 10 s." in text) == (503, True)
