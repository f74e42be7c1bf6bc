"""SMTP clients by others through a relay: swaks, and Postfix's load generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts.logged import wait_upstream
from parts.postfix import USERS
from parts.tools import smtp_source, swaks

if TYPE_CHECKING:
    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.postfix import Postfix

MESSAGES, SESSIONS = 200, 20


async def test_swaks_sends_a_message_and_its_repeat(start_relay: StartRelay, postfix: Postfix) -> None:
    relay = await start_relay(upstream=postfix.url)
    await wait_upstream(relay, "up")
    mail = ("--from", "s@example.test", "--to", ",".join(USERS[:2]), "--header", "Subject: hello", "--body", "world")
    first = await swaks(relay.port, *mail)
    assert first.status == 0, first.said
    offered = {line.partition("250")[2][1:] for line in first.said.splitlines() if line.startswith("<-  250")}
    assert {"PIPELINING", "SIZE 10240000", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN"} <= offered
    assert not {"STARTTLS", "CHUNKING", "VRFY", "ETRN"} & offered
    assert "250 2.0.0 Ok: queued as " in first.said
    again = await swaks(relay.port, *mail, "--pipeline")
    assert again.status == 0, again.said
    assert "250 2.0.0 Ok: duplicate, record " in again.said
    await postfix.wait_delivered(2)
    assert postfix.deliveries() == dict.fromkeys(USERS[:2], 1)


async def test_the_client_of_a_repeat_hears_what_the_first_client_heard(
    start_relay: StartRelay, postfix: Postfix
) -> None:
    relay = await start_relay(upstream=postfix.url, environment={"RELAY_DEDUP__REPLY": "same"})
    await wait_upstream(relay, "up")
    mail = ("--from", "s@example.test", "--to", USERS[0], "--header", "Subject: hello", "--body", "world")
    said = [(await swaks(relay.port, *mail)).said for _ in range(3)]
    queued = [[line for line in each.splitlines() if "queued as" in line] for each in said]
    assert len(queued[0]) == 1
    assert queued == [queued[0]] * 3
    metrics = await relay.metrics()
    assert metrics.outcomes() == {"forwarded": 1, "suppressed": 2}
    assert '"suppressed": 1' in relay.stderr_file.read_text()


async def test_smtp_source_sends_the_same_message_in_many_sessions(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    load = ("-s", str(SESSIONS), "-m", str(MESSAGES), "-l", "10240", "-f", "s@example.test")
    for recipient, sessions_kept in (("one@example.test", []), ("two@example.test", ["-d"])):
        ran = await smtp_source(relay.port, *load, *sessions_kept, "-S", "the same", "-t", recipient)
        assert (ran.status, ran.said) == (0, "")
    assert peer.copies() == {b"one@example.test": 1, b"two@example.test": 1}
    assert (await relay.metrics()).outcomes() == {"forwarded": 2, "suppressed": 2 * (MESSAGES - 1)}


async def test_smtp_source_sends_a_message_to_each_of_many(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    load = ("-s", str(SESSIONS), "-m", str(MESSAGES), "-l", "10240", "-N")
    ran = await smtp_source(relay.port, *load, "-f", "s@example.test", "-t", "user@example.test")
    assert (ran.status, ran.said) == (0, "")
    assert len(peer.copies()) == MESSAGES
    assert set(peer.copies().values()) == {1}
    assert len(peer.sessions) <= SESSIONS + 1
    assert (await relay.metrics()).outcomes() == {"forwarded": MESSAGES}
