"""A relay in front of a real Postfix: the replies to clients, and the mailboxes afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from parts.avideo import AGAIN, notification
from parts.client import Answer, RawClient, send
from parts.logged import wait_upstream
from parts.postfix import USERS, Postfix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from conftest import StartRelay
    from parts.relay_process import RelayProcess

SENDER = b"sender@example.test"
NOBODY = b"nobody@example.test"
PENALTY = 1.0
"""Seconds by which Postfix delays each command of a client with too many junk commands or errors."""
MOST_SLOW = 3
"""Replies that may be slow because the machine is busy."""
ROW_WITHIN = 60.0
"""Seconds. With the penalty a series would take several minutes."""


@pytest.fixture
async def relay(start_relay: StartRelay, postfix: Postfix) -> RelayProcess:
    started = await start_relay(upstream=postfix.url)
    await wait_upstream(started, "up")
    return started


@pytest.fixture
def greylisting_postfix() -> Iterator[Postfix]:
    """A Postfix that refuses unknown recipients with 450, as grey-listing does."""
    with Postfix(settings=["unknown_virtual_mailbox_reject_code = 450"]) as server:
        yield server


@pytest.fixture
def no_flow_control() -> Iterator[Postfix]:
    """A Postfix with its default junk and error counters, and without `in_flow_delay` (ADR 8).

    By default each transaction that any client abandons uses one of 100 tokens. Without a token the first recipient of
    the next transaction takes a second. Each accepted message returns all tokens, but a series of repeats has none.
    """
    with Postfix(settings=["in_flow_delay = 0"]) as server:
        yield server


class Stopwatch:
    """A client that records the time of each reply."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._seconds: list[float] = []

    async def command(self, line: bytes) -> Answer:
        begun = time.monotonic()
        answer = await self._client.command(line)
        self._seconds.append(time.monotonic() - begun)
        return answer

    async def content(self, content: bytes) -> Answer:
        begun = time.monotonic()
        answer = await self._client.content(content)
        self._seconds.append(time.monotonic() - begun)
        return answer

    @property
    def slow(self) -> list[float]:
        return [seconds for seconds in self._seconds if seconds >= PENALTY * 0.9]


def mail(text: str) -> bytes:
    return f"Subject: {text}\r\n\r\n{text}\r\n".encode()


# Recipients


async def test_one_unknown_recipient_of_fifty_gets_the_reply_of_postfix_and_the_others_get_the_mail(
    relay: RelayProcess, postfix: Postfix
) -> None:
    recipients = [*(user.encode() for user in USERS[:25]), NOBODY, *(user.encode() for user in USERS[25:49])]
    async with await RawClient.open(postfix.port) as direct:
        _, own_words, _ = await direct.begin(SENDER, recipients[0], NOBODY, recipients[1])
    sent = await send(relay.port, SENDER, recipients, notification())
    assert own_words.code == 550
    assert sent.rcpt[25] == own_words
    assert {answer.code for number, answer in enumerate(sent.rcpt) if number != 25} == {250}
    assert sent.ok
    await postfix.wait_delivered(49)
    assert postfix.deliveries() == dict.fromkeys(USERS[:49], 1)
    metrics = await relay.metrics()
    assert metrics.outcomes() == {"forwarded": 49}
    assert metrics.value("smtp_dedup_rcpt_refused_total") == 1


async def test_a_thousand_recipients_get_one_message_and_the_next_gets_452(
    relay: RelayProcess, postfix: Postfix
) -> None:
    recipients = [user.encode() for user in USERS]
    sent = await send(relay.port, SENDER, [*recipients, b"user1001@example.test"], notification(), pipelined=True)
    assert {answer.code for answer in sent.rcpt[:1000]} == {250}
    assert sent.rcpt[1000] == Answer(452, (b"4.5.3 Too many recipients",))
    assert sent.ok
    again = await send(relay.port, SENDER, recipients, notification(sending=AGAIN), pipelined=True)
    assert again.final.text.startswith(b"2.0.0 Ok: duplicate, record ")
    await postfix.wait_delivered(1000, seconds=60)
    assert postfix.deliveries() == dict.fromkeys(USERS, 1)
    assert (await relay.metrics()).outcomes() == {"forwarded": 1000, "suppressed": 1000}


async def test_three_spellings_of_a_recipient_get_one_copy(relay: RelayProcess, postfix: Postfix) -> None:
    spellings = [b"User1@Example.TEST", b'"user1"@example.test', b"user1@example.test"]
    sent = await send(relay.port, SENDER, [*spellings, USERS[1].encode()], notification())
    assert [answer.code for answer in sent.rcpt] == [250, 250, 250, 250]
    assert sent.ok
    again = await send(relay.port, SENDER, spellings[2:], notification(sending=AGAIN))
    assert again.ok
    await postfix.wait_delivered(2)
    assert postfix.deliveries() == {USERS[0]: 1, USERS[1]: 1}
    assert (await relay.metrics()).outcomes() == {"forwarded": 2, "suppressed": 1}


# Content


async def test_content_arrives_below_one_received_field_and_a_repeat_does_not(
    relay: RelayProcess, postfix: Postfix
) -> None:
    # 8-bit without BODY=8BITMIME, as PHPMailer sends it: invalid UTF-8, dots at line starts, no line end at the end.
    content = b"Subject: raw\r\nX-Odd: \xe9\r\n\r\n.dot\r\n..\r\n\xff\xfe \xc3\xbc\r\n\r\nend"
    user = USERS[0].encode()
    for pipelined in (True, False):
        assert (await send(relay.port, SENDER, [user], content, pipelined=pipelined)).ok
    await postfix.wait_delivered(1)
    [arrived] = postfix.messages(USERS[0])
    head, _, body = arrived.partition(b"\n\n")
    assert body == b".dot\n..\n\xff\xfe \xc3\xbc\n\nend\n"
    assert b"\nSubject: raw\nX-Odd: \xe9\n" in head
    assert head.count(b"Received: ") == 2
    assert head.count(b"(smtp-dedup-relay ") == 1


async def test_a_bounce_is_never_suppressed_and_keeps_its_null_reverse_path(
    relay: RelayProcess, postfix: Postfix
) -> None:
    for _ in range(2):
        sent = await send(relay.port, b"", [USERS[0].encode()], mail("undeliverable"))
        assert sent.mail.code == 250
        assert b"queued as" in sent.final.text
    await postfix.wait_delivered(2)
    assert postfix.copies(USERS[0]) == 2
    assert all(arrived.startswith(b"Return-Path: <>\n") for arrived in postfix.messages(USERS[0]))


# Long series: what Postfix counts against one client must not slow later clients


async def test_three_hundred_repeats_are_not_slowed(start_relay: StartRelay, no_flow_control: Postfix) -> None:
    relay = await start_relay(upstream=no_flow_control.url)
    async with open_stopwatch(relay) as client, asyncio.timeout(ROW_WITHIN):
        for number in range(301):
            await client.command(b"MAIL FROM:<%b>" % SENDER)
            assert (await client.command(b"RCPT TO:<%b>" % USERS[0].encode())).code == 250
            final = await client.content(mail("again"))
            assert final.code == 250
            assert (b"duplicate" in final.text) == (number > 0)
    assert len(client.slow) <= MOST_SLOW
    await no_flow_control.wait_delivered(1)
    assert no_flow_control.copies(USERS[0]) == 1
    assert (await relay.metrics()).outcomes() == {"forwarded": 1, "suppressed": 300}
    assert_no_complaint(no_flow_control.log())


async def test_fifty_messages_to_unknown_recipients_are_not_slowed(relay: RelayProcess, postfix: Postfix) -> None:
    before = len(postfix.log())
    async with open_stopwatch(relay) as client, asyncio.timeout(ROW_WITHIN):
        for number in range(50):
            await client.command(b"MAIL FROM:<%b>" % SENDER)
            refusal = await client.command(b"RCPT TO:<nobody%d@example.test>" % number)
            assert refusal.code == 550
            assert b"User unknown in virtual mailbox table" in refusal.text
            await client.command(b"RSET")
    assert len(client.slow) <= MOST_SLOW
    assert (await relay.metrics()).value("smtp_dedup_rcpt_refused_total") == 50
    assert_no_complaint(postfix.log()[before:])


async def test_fifty_unknown_recipients_of_one_message_are_not_slowed(relay: RelayProcess, postfix: Postfix) -> None:
    before = len(postfix.log())
    async with open_stopwatch(relay) as client, asyncio.timeout(ROW_WITHIN):
        await client.command(b"MAIL FROM:<%b>" % SENDER)
        for number in range(50):
            assert (await client.command(b"RCPT TO:<nobody%d@example.test>" % number)).code == 550
            assert (await client.command(b"RCPT TO:<%b>" % USERS[number].encode())).code == 250
        assert (await client.content(mail("mixed"))).code == 250
    assert len(client.slow) <= MOST_SLOW
    await postfix.wait_delivered(50)
    assert postfix.deliveries() == dict.fromkeys(USERS[:50], 1)
    assert (await relay.metrics()).outcomes() == {"forwarded": 50}
    assert_no_complaint(postfix.log()[before:])


async def test_fifty_recipients_deferred_with_450_are_not_slowed(
    start_relay: StartRelay, greylisting_postfix: Postfix
) -> None:
    relay = await start_relay(upstream=greylisting_postfix.url)
    async with open_stopwatch(relay) as client, asyncio.timeout(ROW_WITHIN):
        await client.command(b"MAIL FROM:<%b>" % SENDER)
        codes = [(await client.command(b"RCPT TO:<nobody%d@example.test>" % number)).code for number in range(50)]
    assert codes == [450] * 50
    assert len(client.slow) <= MOST_SLOW
    assert_no_complaint(greylisting_postfix.log())


@contextlib.asynccontextmanager
async def open_stopwatch(relay: RelayProcess) -> AsyncIterator[Stopwatch]:
    async with await RawClient.open(relay.port) as raw:
        await raw.command(b"EHLO client.example.test")
        yield Stopwatch(raw)


def assert_no_complaint(log: str) -> None:
    complaints = ("too many errors", "improper command", "lost connection after RCPT", "lost connection after RSET")
    assert not [line for line in log.splitlines() if any(text in line for text in complaints)]
