"""Feedback: that a message was no repeat, and that two messages should have been one."""

from __future__ import annotations

import html
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from parts.listed_traces import trace
from parts.mail_stories import COPY, FIRST, HOSTILE, REFUSED, hostile_mail, mail_with_copies
from parts.page_server import NOW, PASSWORD, PageServer, page_server

from relay.core.content import Content
from relay.core.errors import AdminError
from relay.core.record import SuppressedCopy
from relay.core.trace import RecipientTrace, TraceOutcome
from relay.records.kept_copies import KeptCopies
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay.records.selection import Selection

MAIL = (
    b"From: Shop <shop@example.com>\r\nSubject: Your digest\r\nMessage-ID: <%d@example.com>\r\n\r\n"
    b"Your ticket number is %d today.\r\n"
)


@dataclass
class Result:
    """What came of a release."""

    notes: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=lambda: ["user0@example.org  250 2.0.0 Ok <b>"])
    done: str = "the upstream accepted the copy for 1 of 1"
    errors: list[str] = field(default_factory=list)


@dataclass
class Commands:
    """Notes what the page asks for. Fails with `error` if that is set."""

    result: Result = field(default_factory=Result)
    freed: int = 1
    error: str = ""
    released: list[str] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)

    async def release_copy(self, record: str) -> Result:
        self._check()
        self.released.append(record)
        return self.result

    async def forget(self, selection: Selection) -> int:
        self._check()
        self.selections.append(selection)
        return self.freed

    def _check(self) -> None:
        if self.error:
            raise AdminError(self.error)


@pytest.fixture
def copies(tmp_path: Path) -> KeptCopies:
    return KeptCopies(tmp_path / "kept")


@pytest.fixture
async def page(copies: KeptCopies) -> AsyncIterator[PageServer]:
    async with page_server(flags={"record.keep": f"maildir:{copies.path}"}) as started:
        started.commands = Commands()
        started.traces.traces += mail_with_copies(NOW - 100)
        yield started


def keep(copies: KeptCopies, record: str, content: bytes = MAIL % (1, 1)) -> SuppressedCopy:
    copy = SuppressedCopy(b"shop@example.com", (b"ada@example.org",), Content.from_plain(content))
    copies.save(record, copy)
    return copy


def words(text: str) -> str:
    """The text of a page, without tags, on one line."""
    return re.sub(r" (?=[.,;:)])|(?<=\() ", "", " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()))


def toml(text: str) -> str:
    found = re.search(r'<pre class="toml"[^>]*>(.*?)</pre>', text, re.DOTALL)
    return html.unescape(re.sub(r"</?bdi[^>]*>", "", found[1])).strip() if found else ""


async def token(page: PageServer, path: str = f"/messages/{COPY}") -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', (await page.get(path))[1])
    assert found
    return found[1]


async def say_no_repeat(page: PageServer, name: str = COPY) -> tuple[int, str]:
    return await page.post(f"/messages/{name}/no-repeat", {"token": await token(page)})


async def compare(page: PageServer, first_id: str, second_id: str, /, **contents: bytes) -> tuple[int, str]:
    form = aiohttp.FormData(
        {"token": await token(page), "first_id": first_id, "second_id": second_id}, default_to_multipart=True
    )
    for name, content in contents.items():
        form.add_field(name, content.decode())
    form_data: Any = form
    return await page.post("/compare", form_data)


# This was no repeat


async def test_a_kept_copy_is_released(page: PageServer, copies: KeptCopies, caplog: pytest.LogCaptureFixture) -> None:
    keep(copies, COPY)
    assert "The button sends it now" in words((await page.get(f"/messages/{COPY}"))[1])
    with caplog.at_level(logging.INFO):
        status, text = await say_no_repeat(page)
    assert status == 200
    assert page.commands.released == [COPY]  # type: ignore[union-attr]
    assert page.commands.selections == []  # type: ignore[union-attr]
    assert "The upstream accepted the copy for 1 of 1. user0@example.org 250 2.0.0 Ok <b>" in words(text)
    line = next(line for line in caplog.records if "no repeat" in line.message)
    assert line.fields == {  # type: ignore[attr-defined]
        "record": COPY,
        "result": "The upstream accepted the copy for 1 of 1.",
        "peer": "127.0.0.1",
        "user": "",
    }


async def test_the_log_has_the_name_of_the_user_but_no_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for shown, expected in (("false", "<address>"), ("true", "ada@example.org")):
        async with page_server(tmp_path / "users", flags={"log.addresses": shown}) as page:
            (tmp_path / "users").write_text((tmp_path / "users").read_text().replace("ada:", "ada@example.org:"))
            page.commands = Commands()
            page.traces.traces += mail_with_copies(NOW - 100)
            fields = {"name": "ada@example.org", "password": PASSWORD, "token": await token(page, "/login")}
            assert (await page.post("/login", fields))[0] == 303
            with caplog.at_level(logging.INFO):
                assert (await say_no_repeat(page))[0] == 200
        assert caplog.records[-1].fields["user"] == expected  # type: ignore[attr-defined]


async def test_without_a_copy_the_claim_is_forgotten(page: PageServer) -> None:
    assert "No copy is kept" in words((await page.get(f"/messages/{COPY}"))[1])
    status, text = await say_no_repeat(page)
    assert (status, page.commands.released) == (200, [])  # type: ignore[union-attr]
    (selection,) = page.commands.selections  # type: ignore[union-attr]
    assert (selection.records, selection.keys) == (frozenset((COPY,)), frozenset(("f" * 32,)))
    assert "1 claim was freed: the next copy goes through." in words(text)


async def test_a_copy_on_another_host_is_named(page: PageServer) -> None:
    page.traces.traces[1] = page.traces.traces[1]._replace(kept="1.2_new", host="other.example.com")
    text = words((await page.get(f"/messages/{COPY}"))[1])
    assert "Its copy is kept on other.example.com: use the page or relay release there to send it." in text


async def test_a_copy_that_was_released_before_frees_the_claim(page: PageServer, copies: KeptCopies) -> None:
    copy = keep(copies, COPY)
    found = copies.find(COPY)
    assert found
    copies.mark_released(found, COPY, copy, copy.paths)
    page.commands.freed = 0  # type: ignore[union-attr]
    assert "was released before" in words((await page.get(f"/messages/{COPY}"))[1])
    _, text = await say_no_repeat(page)
    assert (page.commands.released, len(page.commands.selections)) == ([], 1)  # type: ignore[union-attr]
    assert "no claim is left, so that the next copy goes through" in words(text)


async def test_a_form_that_is_sent_again_frees_no_claim_in_place_of_its_copy(
    page: PageServer, copies: KeptCopies
) -> None:
    copy = keep(copies, COPY)
    assert 'name="wanted" value="release"' in (await page.get(f"/messages/{COPY}"))[1]
    found = copies.find(COPY)
    assert found
    copies.mark_released(found, COPY, copy, copy.paths)
    form = {"token": await token(page), "wanted": "release"}
    status, text = await page.post(f"/messages/{COPY}/no-repeat", form)
    assert (status, page.commands) == (200, Commands())
    assert "Nothing was done: the kept copy was released before." in words(text)
    assert 'name="wanted"' not in (await page.get(f"/messages/{COPY}"))[1]


async def test_an_observed_repeat_needs_nothing(page: PageServer) -> None:
    assert "It was forwarded, because it was only observed." in words((await page.get(f"/messages/{REFUSED}"))[1])
    status, text = await say_no_repeat(page, REFUSED)
    assert (status, page.commands) == (200, Commands())
    assert "Nothing was withheld" in words(text)


async def test_failures_are_told(page: PageServer, copies: KeptCopies) -> None:
    keep(copies, COPY)
    page.commands.error = "another relay release works in <b>"  # type: ignore[union-attr]
    status, text = await say_no_repeat(page)
    assert (status, "another relay release works in &lt;b&gt;" in text) == (409, True)
    assert "Nothing was done." in text
    page.commands.error = ""  # type: ignore[union-attr]
    page.commands.result.errors.append("not accepted for 1 of 1")  # type: ignore[union-attr]
    status, text = await say_no_repeat(page)
    assert (status, "not accepted for 1 of 1" in text) == (409, True)
    page.commands = None
    assert (await say_no_repeat(page))[0] == 503
    page.traces.traces.clear()
    async with page_server() as other:
        assert (await other.post(f"/messages/{COPY}/no-repeat", {"token": "0" * 64}))[0] == 403


async def test_a_damaged_copy_is_told_and_not_read(page: PageServer, copies: KeptCopies) -> None:
    keep(copies, COPY)
    found = copies.find(COPY)
    assert found
    found.path.write_bytes(b"X-Relay-Record: nonsense\r\n")
    assert "cannot be read here (its first fields were changed)" in words((await page.get(f"/messages/{COPY}"))[1])


async def test_a_disk_that_hangs_leaves_the_rest(page: PageServer) -> None:
    page.site._thread.close()
    page.site._thread = Executor("hangs", 0, 0.01)
    status, text = await page.get(f"/messages/{COPY}")
    assert (status, "Its kept copy cannot be read here (This takes longer than 10 s.)" in words(text)) == (200, True)
    assert (await say_no_repeat(page))[0] == 200
    assert page.commands.released == [COPY]  # type: ignore[union-attr]


async def test_a_rule_is_offered_from_the_kept_copy(page: PageServer, copies: KeptCopies) -> None:
    keep(copies, COPY)
    assert toml((await say_no_repeat(page))[1]).splitlines() == [
        "[[rules]]",
        'name = "no repeats: Your digest"',
        'subject = "^Your digest$"',
        r"from = '^Shop <shop@example\.com>$'",
        'action = "exempt"',
    ]


async def test_a_rule_is_offered_from_the_trace(page: PageServer) -> None:
    text = (await say_no_repeat(page))[1]
    assert "recipient = '^user0@example\\.org$'" in toml(text)
    assert "reverse_path = '(?i)^contact@videos\\.example$'" in toml(text)
    page.traces.traces[1] = page.traces.traces[1]._replace(sender="h:0123456789abcdef")
    text = (await say_no_repeat(page))[1]
    assert toml(text) == ""
    assert "Too little is known of this message" in words(text)


async def test_actions_need_a_post_with_the_token_of_the_session(tmp_path: Path) -> None:
    async with page_server(tmp_path / "users") as page:
        page.commands = Commands()
        page.traces.traces += mail_with_copies(NOW - 100)
        path = f"/messages/{COPY}/no-repeat"
        anonymous = await token(page, "/login")
        assert (await page.post(path, {"token": anonymous}))[0] == 403
        fields = {"name": "ada", "password": PASSWORD, "next": "/", "token": anonymous}
        assert (await page.post("/login", fields))[0] == 303
        for wrong in ({}, {"token": anonymous}):
            assert (await page.post(path, wrong))[0] == 403
        assert (await page.post("/compare", {"token": anonymous}))[0] == 403
        assert (await page.get(path))[0] == 405
        assert page.commands == Commands()
        own = await token(page)
        assert (await page.post(path, {"token": own}, headers={"Origin": "http://evil.example"}))[0] == 403
        assert (await page.post(path, {"token": own}))[0] == 200
        assert len(page.commands.selections) == 1


# These should have been one


async def test_reasons_in_the_traces(page: PageServer) -> None:
    def second(number: int, age: float, rule: str = "default", recipient: str = "user0@example.org") -> str:
        to = RecipientTrace(recipient, TraceOutcome.FORWARDED, "250", rule)
        page.traces.traces.append(trace(number, NOW - 100 + age, recipients=(to,)))
        return f"{number:012x}"

    refused = RecipientTrace("user9@example.org", TraceOutcome.REFUSED, "550", "default")
    page.traces.traces.append(trace(0xC0, NOW - 90, recipients=(refused,)))
    for first, other, reason in (
        (FIRST, second(0xC1, 50, recipient="eve@example.org"), "No recipient is in both."),
        (FIRST, second(0xC2, 1200), "They came 20m apart, and the window of the rule default is 10m."),
        (FIRST, second(0xC3, 50, "avideo: test mail"), "The rule avideo: test mail exempts the second"),
        (FIRST, second(0xC4, 50, "null reverse-path"), "The second was exempt, or not judged: null reverse-path."),
        (FIRST, second(0xC5, 50, "monitoring: zabbix"), "no repeat after another mail of its sender"),
        (f"{0xC0:012x}", second(0xC6, 50, recipient="user9@example.org"), "The first was not accepted"),
    ):
        status, text = await page.get("/compare", params={"first": other, "second": first})
        assert (status, reason in words(text)) == (200, True), reason
        assert text.index(first) < text.index(other)
        assert "The trace holds no content, and mail that was forwarded is never kept." in words(text)


async def test_a_repeat_of_the_first_is_said_to_be_one(page: PageServer) -> None:
    source = (await page.get("/compare", params={"first": COPY, "second": FIRST}))[1]
    assert "The second is a repeat of the first" in words(source)
    for label in ("First", "Second"):  # of the cards on a narrow screen
        assert source.count(f'<td data-label="{label}">') == 7
    page.traces.traces[1] = page.traces.traces[1]._replace(at=page.traces.traces[0].at - 1)
    text = words((await page.get("/compare", params={"first": COPY, "second": FIRST}))[1])
    assert "The first is a repeat of the second for at least one recipient: it began earlier" in text


async def test_digests_of_two_repeats_are_compared(page: PageServer) -> None:
    forms = {"default": ("Subject 1c9f03a2", "text 00000000", "X-Extra 12345678")}
    page.traces.traces[2] = page.traces.traces[2]._replace(forms=forms)
    text = words((await page.get("/compare", params={"first": COPY, "second": REFUSED}))[1])
    assert (
        "Field First Second Differs Subject 1c9f03a2 1c9f03a2 no From 77aa0011 none yes "
        "text 0badcafe 00000000 yes X-Extra none 12345678 yes" in text
    )


async def test_pasted_messages_get_an_ignore_that_makes_them_equal(page: PageServer, copies: KeptCopies) -> None:
    for number, record in enumerate(("0000000000d1", "0000000000d2", "0000000000d3")):
        keep(copies, record, MAIL % (number, number))
    status, text = await compare(
        page, FIRST, REFUSED, first=MAIL % (1, 1), second=b"Delivered-To: x\r\n" + MAIL % (2, 2)
    )
    assert status == 200
    assert toml(text).splitlines() == ["[[ignore]]", r"text = 'Your\s+ticket\s+number\s+is\s+(?P<ignored>[0-9]+)'"]
    assert "With this in the settings file the two are equal." in words(text)
    assert (
        "Tried on the 3 newest kept copies: 0 of their recipients have a repeat of another one now, 2 with it."
        in words(text)
    )


async def test_kept_copies_are_compared_at_once(page: PageServer, copies: KeptCopies) -> None:
    keep(copies, COPY)
    keep(copies, REFUSED, MAIL % (2, 1))
    for number in (1, 2):
        page.traces.traces[number] = page.traces.traces[number]._replace(kept="name")
    _, shown = await page.get(f"/messages/{COPY}")
    path = re.search(r'<a href="(/compare[^"]+)">Compare the kept copies</a>', shown)
    assert path
    status, text = await page.get(html.unescape(path[1]))
    assert status == 200
    assert "Equal they differ only in Message-ID" in words(text)
    assert "What differs and does not count What First Second Message-ID <1@example.com> <2@example.com>" in words(text)
    assert "Their contents are equal" in words(text)


async def test_a_pasted_message_replaces_a_kept_copy(page: PageServer, copies: KeptCopies) -> None:
    keep(copies, COPY)
    status, text = await compare(page, FIRST, COPY)
    assert (status, f"No copy of {FIRST} is kept. Paste its source" in words(text)) == (400, True)
    _, text = await compare(page, FIRST, COPY, first=MAIL % (1, 1))
    assert "Equal byte for byte the same" in words(text)
    _, text = await compare(page, FIRST, COPY, first=MAIL % (1, 1), second=b"Subject: other\r\n\r\nx\r\n")
    assert "Different " in words(text)
    assert "No ignore is suggested" in words(text)


@pytest.mark.parametrize(
    ("second", "status", "words_"),
    [("0000000000ff", 404, "There is no trace of"), ("<script>", 404, "Traces stay for 30d"), (FIRST, 400, "the same")],
)
async def test_unknown_ids(page: PageServer, second: str, status: int, words_: str) -> None:
    got, text = await page.get("/compare", params={"first": FIRST, "second": second})
    assert (got, words_ in words(text), "<script>" in text.replace("<script src", "")) == (status, True, False)


async def test_hostile_mails_are_shown_as_text(page: PageServer, copies: KeptCopies) -> None:
    page.traces.traces.append(hostile_mail(NOW))
    content = f"From: {HOSTILE}\nSubject: {HOSTILE}\n\n{HOSTILE} %d".replace("\r", "").encode().replace(b"\n", b"\r\n")
    keep(copies, COPY, content % 1)
    keep(copies, "000000000bad", content % 2)
    page.commands.result.answers = [HOSTILE]  # type: ignore[union-attr]
    page.commands.result.errors = [HOSTILE]  # type: ignore[union-attr]
    texts = [
        (await say_no_repeat(page, "000000000bad"))[1],
        (await page.get("/compare", params={"first": COPY, "second": "000000000bad"}))[1],
        (await page.get("/messages/000000000bad"))[1],
    ]
    for text in texts:
        assert "<script>alert" not in text
        assert not {"\x1b", "\x00", "\u202e", "\u2066", "\r"} & set(text)
