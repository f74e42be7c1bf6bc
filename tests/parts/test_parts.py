"""Tests of the parts that all other tests rely on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import redis

from parts.avideo import FIRST, notification
from parts.avideo_pairs import DIFFERENT_PAIRS, EQUAL_PAIRS, Pair
from parts.certificates import Authority, server_context
from parts.client import GONE, RawClient, send, stuff
from parts.environment import isolated
from parts.faults import Step, drop, hang, reset, say, say_and_drop, wait
from parts.peer import ScriptedPeer
from parts.phpmailer import send_as_avideo
from parts.postfix import USERS, Postfix
from parts.redis_server import RedisServer
from parts.relay_process import Metrics, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parts.faults import Action

SENDER = b"sender@example.test"
ONE, TWO, THREE = b"one@example.test", b"two@example.test", b"three@example.test"
MAIL = b"Subject: x\r\n\r\n.dot\r\n..\r\nbare\nLF, bare\rCR, \xff\r\n.\r\n"


# The scripted peer, and the client


@pytest.mark.parametrize("pipelined", [False, True])
async def test_the_peer_receives_the_content_byte_for_byte(peer: ScriptedPeer, pipelined: bool) -> None:
    for content in (MAIL, b"", b".\r\n", b"\r\n"):
        sent = await send(peer.port, SENDER, [ONE, TWO, ONE], content, pipelined=pipelined)
        assert sent.ok
        assert peer.accepted[-1].content == content
    assert peer.accepted[0].reverse_path == SENDER
    assert peer.accepted[0].recipients == (ONE, TWO, ONE)
    assert peer.copies() == {ONE: 8, TWO: 4}
    assert [session.ahead > 0 for session in peer.sessions] == [pipelined] * 4


async def test_the_peer_offers_given_extensions_and_enforces_them() -> None:
    async with ScriptedPeer(extensions=[b"SIZE 100"]) as peer, await RawClient.open(peer.port) as client:
        assert (await client.command(b"EHLO me")).lines == (b"peer.example.test", b"SIZE 100")
        assert (await client.command(b"MAIL FROM:<> BODY=8BITMIME")).code == 555
        assert (await client.command(b"MAIL FROM:<> SIZE=101")).code == 552
        assert (await client.command(b"MAIL FROM:<> SIZE=100")).code == 250
        assert (await client.command(b"DATA")).code == 554
        assert (await client.command(b"RSET")).code == 250
        assert (await client.command(b"RCPT TO:<a@b>")).code == 503
        assert (await client.command(b"")).code == 500
        assert peer.sessions[0].count(b"RSET") == 1


async def test_the_peer_refuses_a_given_recipient(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 5.1.1 no such user"), matching=TWO, times=None)
    sent = await send(peer.port, SENDER, [ONE, TWO, THREE], MAIL)
    assert [answer.code for answer in sent.rcpt] == [250, 550, 250]
    assert sent.ok
    assert peer.copies() == {ONE: 1, THREE: 1}


@pytest.mark.parametrize("end", [drop, reset])
@pytest.mark.parametrize(("step", "accepted"), [(Step.DATA, 0), (Step.DOT, 0), (Step.REPLY, 1)])
async def test_the_peer_disconnects_before_or_after_it_accepts_the_message(
    peer: ScriptedPeer, step: Step, accepted: int, end: Callable[[], Action]
) -> None:
    peer.on(step, end())
    assert (await send(peer.port, SENDER, [ONE], MAIL)).final == GONE
    assert (len(peer.received), len(peer.accepted)) == (step is not Step.DATA, accepted)
    assert (await send(peer.port, SENDER, [ONE], MAIL)).ok
    assert len(peer.accepted) == accepted + 1


async def test_a_fault_acts_at_the_visits_that_match(peer: ScriptedPeer) -> None:
    peer.on(Step.DATA, say(b"451 4.3.0 second"), skip=1)
    peer.on(Step.GREETING, say_and_drop(b"421 4.3.2 third"), session=3)
    finals = [(await send(peer.port, SENDER, [ONE], MAIL)).final.code for _ in range(4)]
    assert finals == [250, 451, 421, 250]
    fault = peer.on(Step.DOT, say(b"552 5.2.2 full"), matching=b"subject: x", times=None)
    assert (await send(peer.port, SENDER, [ONE], MAIL)).final.code == 552
    assert fault.visits == 1
    peer.forgive()
    assert (await send(peer.port, SENDER, [ONE], MAIL)).ok


async def test_sessions_wait_at_a_gate_together(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    async with asyncio.TaskGroup() as group:
        twins = [group.create_task(send(peer.port, SENDER, [ONE], MAIL)) for _ in range(3)]
        await peer.wait_waiting(Step.DOT, 3)
        assert not peer.accepted
        assert len(peer.open_sessions) == 3
        gate.set()
    assert all(twin.result().ok for twin in twins)
    await peer.wait_for(lambda: not peer.open_sessions, "the end of all sessions")
    assert peer.waiting(Step.DOT) == 0


async def test_the_deadline_of_a_wait_names_what_is_missing(peer: ScriptedPeer) -> None:
    peer.on(Step.MAIL, hang())
    async with await RawClient.open(peer.port) as client:
        with pytest.raises(TimeoutError, match="no reply"):
            await client.command(b"MAIL FROM:<>", seconds=0.05)
        with pytest.raises(TimeoutError, match=r"1 messages accepted; last commands: .*MAIL FROM"):
            await peer.wait_accepted(1, seconds=0.05)


async def test_the_peer_closes_an_idle_session_with_or_without_a_reply(peer: ScriptedPeer) -> None:
    async with await RawClient.open(peer.port) as client, await RawClient.open(peer.port) as other:
        peer.hang_up(farewell=b"421 4.4.2 idle")
        assert (await client.read_reply()).code == 421
        assert (await client.read_reply()) == (await other.command(b"NOOP"))._replace(code=0, lines=GONE.lines)
    async with await RawClient.open(peer.port) as client:
        peer.hang_up(broken=True)
        assert await client.read_reply() == GONE


async def test_the_peer_restarts_on_its_port(peer: ScriptedPeer) -> None:
    await peer.stop()
    with pytest.raises(ConnectionRefusedError):
        await RawClient.open(peer.port)
    await peer.start()
    assert (await send(peer.port, SENDER, [ONE], MAIL)).ok


async def test_the_client_half_closes_and_resets(peer: ScriptedPeer) -> None:
    client = await RawClient.open(peer.port)
    await client.begin(SENDER, ONE)
    assert (await client.command(b"DATA")).code == 354
    await client.send_raw(stuff(MAIL))
    await client.half_close()
    assert (await client.read_reply()).code == 250
    assert await client.read_reply() == GONE
    await client.close()
    client = await RawClient.open(peer.port)
    await client.reset()
    await peer.wait_for(lambda: not peer.open_sessions, "the end of all sessions")


async def test_the_peer_speaks_tls_and_auth(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority.issue())
    login = [b"AUTH LOGIN", b"bmFtZQ==", b"c2VjcmV0"]
    async with ScriptedPeer(starttls=context, credentials=(b"name", b"secret")) as peer:
        async with await RawClient.open(peer.port) as client:
            assert b"STARTTLS" in (await client.command(b"EHLO me")).lines
            assert (await client.start_tls(authority.trust())).code == 220
            assert b"STARTTLS" not in (await client.command(b"EHLO me")).lines
            assert (await client.command(b"MAIL FROM:<>")).code == 530
            assert (await client.command(b"AUTH PLAIN AG5hbWUAd3Jvbmc=")).code == 535
            assert [(await client.command(line)).code for line in login] == [334, 334, 235]
            assert [answer.code for answer in await client.begin(SENDER, ONE)] == [250]
            assert (await client.content(MAIL)).code == 250
        assert peer.sessions[0].encrypted
        assert peer.accepted[0].content == MAIL
    async with ScriptedPeer(tls=context) as peer, await RawClient.open(peer.port, tls=authority.trust()) as client:
        assert client.greeting.code == 220


# Redis


def test_redis_is_killed_paused_and_started_again(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("a", "b", px=60_000)
    assert 0 < redis_server.keys()["a"] <= 60_000
    redis_server.pause()
    with redis.Redis.from_url(redis_server.url, socket_timeout=0.05) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    redis_server.resume()
    redis_server.kill()
    with redis_server.client() as client, pytest.raises(redis.ConnectionError):
        client.ping()
    redis_server.start()
    assert redis_server.keys() == {}


def test_redis_persists_its_data_if_asked_to() -> None:
    with RedisServer(unix=True, persist=True) as server:
        with server.client() as client:
            client.set("a", "b")
        server.restart()
        assert server.keys() == {"a": -1}
        server.flush()
        assert server.keys() == {}


# Postfix


async def test_postfix_delivers_and_refuses_in_its_own_words(postfix: Postfix) -> None:
    known, unknown = USERS[0].encode(), b"nobody@example.test"
    sent = await send(postfix.port, SENDER, [known, unknown], MAIL)
    assert sent.rcpt[1].code == 550
    assert b"User unknown in virtual mailbox table" in sent.rcpt[1].text
    assert sent.ok
    await postfix.wait_delivered(1)
    assert postfix.deliveries() == {USERS[0]: 1}
    assert b"\n.dot\n..\n" in postfix.messages(USERS[0])[0]
    assert "status=sent" in postfix.log()
    await asyncio.to_thread(postfix.restart)
    assert (await send(postfix.port, SENDER, [known], MAIL)).ok
    await postfix.wait_delivered(2)
    assert postfix.copies(USERS[0]) == 2
    postfix.clean()
    assert postfix.copies(USERS[0]) == 0


async def test_postfix_speaks_tls(authority: Authority) -> None:
    with Postfix(certificate=authority.issue("mx.example.test")) as postfix:
        async with await RawClient.open(postfix.port) as client:
            await client.command(b"EHLO me")
            assert (await client.start_tls(authority.trust())).code == 220
            assert (await client.begin(SENDER, USERS[0].encode()))[0].code == 250
            assert (await client.content(MAIL)).code == 250
        async with await RawClient.open(postfix.tls_port, tls=authority.trust()) as client:
            assert client.greeting.code == 220


# PHPMailer


async def test_phpmailer_sends_in_chunks_on_a_connection_each(peer: ScriptedPeer) -> None:
    recipients = [f"user{number}@example.test" for number in range(101)]
    runs = await asyncio.gather(*(send_as_avideo(peer.port, recipients, "Über 🎬", "<p>Hi</p>") for _ in range(2)))
    for run in runs:
        assert [(chunk.ok, chunk.error, len(chunk.recipients)) for chunk in run] == [
            (True, "", 50),
            (True, "", 50),
            (True, "", 1),
        ]
        assert run[0].heard[-2].startswith("250 2.0.0 Ok: queued as")
    assert peer.copies() == {recipient.encode(): 2 for recipient in recipients}
    assert len(peer.sessions) == 6
    assert not any(session.ahead for session in peer.sessions)
    bulk, single = peer.accepted[0].content, next(m for m in peer.accepted if len(m.recipients) == 1).content
    assert b"To: undisclosed-recipients:;" in bulk
    assert b"To: user100@example.test" in single


async def test_phpmailer_fails_where_one_recipient_is_refused(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=TWO)
    (chunk,) = await send_as_avideo(peer.port, [ONE.decode(), TWO.decode()], "x", "<p>Hi</p>")
    assert not chunk.ok
    assert TWO.decode() in chunk.error
    assert peer.copies() == {ONE: 1}


# The relay's process


async def test_a_relay_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)relay ended with [1-9].*at its start:.*\w"):
        await RelayProcess("--no-such-flag", upstream="smtp://127.0.0.1:1").__aenter__()


def test_metrics_are_read_by_label() -> None:
    metrics = Metrics(
        "# TYPE smtp_dedup_recipients counter\n"
        'smtp_dedup_recipients_total{outcome="forwarded"} 49.0\n'
        'smtp_dedup_recipients_total{outcome="suppressed"} 0.0\n'
        "# TYPE smtp_dedup_messages counter\n"
        'smtp_dedup_messages_total{reply="2xx"} 2.0\n'
        "# TYPE smtp_dedup_store_up gauge\n"
        "smtp_dedup_store_up 1.0\n"
    )
    assert metrics.outcomes() == {"forwarded": 49}
    assert metrics.messages() == {"2xx": 2}
    assert metrics.value("smtp_dedup_store_up") == 1
    with pytest.raises(KeyError):
        metrics.value("smtp_dedup_nothing")


# AVideo's mails


@pytest.mark.parametrize("pair", EQUAL_PAIRS + DIFFERENT_PAIRS, ids=str)
def test_both_mails_of_a_pair_are_sendable_and_not_the_same_bytes(pair: Pair) -> None:
    assert pair.a != pair.b
    for mail in (pair.a, pair.b):
        assert mail.count(b"\n") == mail.count(b"\r\n")
        assert max(map(len, mail.splitlines())) <= 998


def test_a_notification_is_a_multipart_of_usual_size() -> None:
    mail = notification(sending=FIRST)
    assert 8_000 < len(mail) < 14_000
    assert b"This is a multi-part message in MIME format.\r\n" in mail
    assert mail.count(b"?cache=") == 1


def test_pairs_carry_their_names() -> None:
    names = [pair.name for pair in EQUAL_PAIRS + DIFFERENT_PAIRS]
    assert len(set(names)) == len(names)


# The environment


def test_settings_and_state_of_the_host_do_not_reach_the_relay(tmp_path: Path) -> None:
    host = {"PATH": "/bin", "HOME": "/root", "RELAY_LOG__LEVEL": "debug", "RELAY_CONFIG": "/etc/x", "LISTEN_FDS": "1"}
    own = {"RELAY_CONFIG": "/dev/null", "STATE_DIRECTORY": str(tmp_path), "HOME": str(tmp_path)}
    assert isolated(host, tmp_path) == {"PATH": "/bin", **own}
