"""The wirings of `config/postfix/` with a real Postfix: what AVideo sends, counted in the mailboxes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient, send
from parts.faults import Step, say, wait
from parts.logged import wait_upstream
from parts.phpmailer import send_as_avideo
from parts.ports import free_port, wait_for_port
from parts.postfix import USERS, Postfix
from parts.postfix_wiring import FILTERED, FOLDER, MTA, RELAY, RETURNED, lines, write_relay_settings
from parts.relay_process import run_relay
from parts.waiting import until

from relay.settings.units import parse_duration

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.relay_process import RelayProcess

SENDER = b"contact@example.test"
FIVE = USERS[:5]
ONCE = Counter(dict.fromkeys(FIVE, 1))


def mail(text: str) -> bytes:
    return f"From: contact@example.test\r\nSubject: {text}\r\n\r\n{text}\r\n".encode()


def as_lf(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n")


def wired(wiring: str, ports: dict[int, int]) -> Postfix:
    """Returns a Postfix with the lines of a wiring."""
    return Postfix(settings=lines(wiring, "main.cf", ports), services=lines(wiring, "master.cf", ports))


async def started(
    start_relay: StartRelay, wiring: str, folder: Path, ports: dict[int, int], **more: object
) -> RelayProcess:
    """Starts a relay with the settings of a wiring, and notes its port in `ports`."""
    path, upstream = write_relay_settings(wiring, folder, ports)
    relay = await start_relay("-c", str(path), upstream=str(more.pop("upstream", upstream)), **more)
    ports[RELAY] = relay.port
    return relay


async def send_twice_at_once(port: int) -> None:
    """Two processes of AVideo send the same notice."""
    runs = await asyncio.gather(*(send_as_avideo(port, FIVE, "New video", "<p>A new video</p>") for _ in range(2)))
    assert all(chunk.ok for run in runs for chunk in run), runs


# Application, relay, MTA


async def test_submission(start_relay: StartRelay, tmp_path: Path) -> None:
    with wired("submission", {}) as mta:
        relay = await started(start_relay, "submission", tmp_path, {MTA: mta.port})
        await wait_upstream(relay, "up")
        await send_twice_at_once(relay.port)
        assert (await send(relay.port, SENDER, [b"nobody@example.test"], mail("x"))).rcpt[0].code == 550
        await mta.wait_delivered(5)
        assert mta.deliveries() == ONCE
        assert (await relay.metrics()).outcomes() == {"forwarded": 5, "suppressed": 5}


# Postfix before the queue


async def test_before_the_queue(start_relay: StartRelay, tmp_path: Path) -> None:
    ports = {FILTERED: free_port(), RETURNED: free_port()}
    relay = await started(start_relay, "before-queue", tmp_path, ports)
    with wired("before-queue", ports) as postfix:
        await wait_upstream(relay, "up")
        await wait_for_port(ports[FILTERED])
        await send_twice_at_once(ports[FILTERED])
        # Mail that comes in at the other port is not filtered.
        assert (await send(postfix.port, SENDER, [USERS[5].encode()], mail("unfiltered"))).ok
        async with await RawClient.open(ports[FILTERED]) as client:
            nobody, user = await client.begin(SENDER, b"nobody@example.test", USERS[6].encode())
            assert (nobody.code, user.code) == (550, 250)
            assert (await client.content(mail("live"))).code == 250
        await postfix.wait_delivered(7)
        assert postfix.deliveries() == ONCE + Counter(USERS[5:7])
        assert (await relay.metrics()).outcomes() == {"forwarded": 6, "suppressed": 5}


async def test_before_the_queue_the_application_receives_the_reply_of_the_relay(
    start_relay: StartRelay, tmp_path: Path, peer: ScriptedPeer
) -> None:
    ports = {FILTERED: free_port(), RETURNED: peer.port}
    relay = await started(start_relay, "before-queue", tmp_path, ports)
    peer.on(Step.RCPT, say(b"452 4.2.2 Mailbox full"), matching=USERS[0].encode())
    peer.on(Step.DOT, say(b"554 5.7.1 No such content here"))
    master = [line for line in lines("before-queue", "master.cf", ports) if line]
    returned = next(number for number, line in enumerate(master) if line.startswith(f"127.0.0.1:{peer.port}"))
    with Postfix(services=master[:returned]):
        await wait_upstream(relay, "up")
        await wait_for_port(ports[FILTERED])
        async with await RawClient.open(ports[FILTERED]) as client:
            full, user = await client.begin(SENDER, USERS[0].encode(), USERS[1].encode())
            assert (full.code, full.text, user.code) == (452, b"4.2.2 Mailbox full", 250)
            refused = await client.content(mail("refused"))
            assert (refused.code, refused.text) == (554, b"5.7.1 No such content here")
        relay.kill()
        await relay.wait()
        # Nothing is accepted while the relay is away.
        refused = (await send(ports[FILTERED], SENDER, [USERS[2].encode()], mail("away"))).rcpt[0]
        assert refused.code == 451
    assert peer.accepted == []


# Postfix after the queue


async def test_after_the_queue_nothing_is_lost_while_the_relay_is_away(start_relay: StartRelay, tmp_path: Path) -> None:
    ports = {RETURNED: free_port()}
    relay = await started(start_relay, "after-queue", tmp_path, ports)
    with wired("after-queue", ports) as postfix:
        await wait_upstream(relay, "up")
        await send_twice_at_once(postfix.port)
        await postfix.wait_delivered(5)
        relay.kill()
        await relay.wait()
        await send_twice_at_once(postfix.port)  # the same notice, within the window
        assert (await send(postfix.port, SENDER, [USERS[5].encode()], mail("by SMTP"))).ok
        postfix.sendmail(as_lf(mail("by sendmail")), SENDER.decode(), USERS[5:7])
        await until(lambda: postfix.deferred() == 4, "four messages deferred", seconds=60)
        assert postfix.deliveries() == ONCE
        await relay.start()
        await wait_upstream(relay, "up")
        postfix.flush()
        await postfix.wait_delivered(8)
        assert postfix.deliveries() == ONCE + Counter([USERS[5], USERS[5], USERS[6]])
        assert (await relay.metrics()).outcomes() == {"forwarded": 3, "suppressed": 10}


async def test_after_the_queue_nothing_is_lost_while_a_smarthost_behind_the_relay_is_away(
    start_relay: StartRelay, tmp_path: Path, postfix: Postfix
) -> None:
    """Ten mails, each twice, one of each pair by sendmail: the smarthost receives each of them once."""
    settings = {"upstream.patience": "0"}
    ports: dict[int, int] = {RETURNED: free_port()}
    relay = await started(start_relay, "after-queue", tmp_path, ports, upstream=postfix.url, settings=settings)
    await wait_upstream(relay, "up")
    with wired("after-queue", ports) as front:
        postfix.stop()
        for number, user in enumerate(USERS[:10]):
            assert (await send(front.port, SENDER, [user.encode()], mail(f"number {number}"))).ok
            front.sendmail(as_lf(mail(f"number {number}")), SENDER.decode(), [user])
        await until(lambda: front.deferred() == 20, "twenty messages deferred", seconds=60)
        postfix.start()
        await wait_upstream(relay, "up")
        front.flush()
        await until(lambda: not front.queued(), "an empty queue", seconds=60)
        await postfix.wait_delivered(10)
    assert postfix.deliveries() == Counter(USERS[:10])
    assert (await relay.metrics()).outcomes() == {"forwarded": 10, "suppressed": 10}


async def test_after_the_queue_a_retry_repeats_nothing_that_was_accepted(
    start_relay: StartRelay, tmp_path: Path, peer: ScriptedPeer
) -> None:
    """A message is accepted for one recipient and deferred for the other. Postfix retries it for both."""
    ports: dict[int, int] = {RETURNED: free_port()}
    relay = await started(
        start_relay, "after-queue", tmp_path, ports, upstream=peer.url, settings={"dedup.wait": "0.3s"}
    )
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    one, two = (user.encode() for user in USERS[:2])
    with wired("after-queue", ports) as front:
        await wait_upstream(relay, "up")
        assert (await send(front.port, SENDER, [one], mail("x"))).ok
        await peer.wait_waiting(Step.DOT)
        assert (await send(front.port, SENDER, [one, two], mail("x"))).ok
        await until(lambda: front.deferred() == 1, "a deferred message")
        assert peer.copies() == {two: 1}
        gate.set()
        await peer.wait_accepted(2)
        front.flush()
        await until(lambda: not front.queued(), "an empty queue")
    assert peer.copies() == {one: 1, two: 1}


async def test_after_the_queue_the_window_is_longer_than_the_time_between_two_tries(tmp_path: Path) -> None:
    path, _ = write_relay_settings("after-queue", tmp_path, {})
    shown = await run_relay("config", "-c", str(path))
    window = next(line for line in shown.stdout.splitlines() if line.startswith("window = "))
    postfix = wired("after-queue", {})
    try:
        seconds = sum(_seconds(postfix.setting(name)) for name in ("maximal_backoff_time", "queue_run_delay"))
    finally:
        postfix.close()
    assert parse_duration(window.split('"')[1]) >= seconds + 300


def _seconds(value: str) -> int:
    return int(value.removesuffix("s"))


@pytest.mark.parametrize("wiring", [folder.name for folder in sorted(FOLDER.iterdir())])
async def test_postfix_and_the_relay_take_the_files_without_a_warning(wiring: str, tmp_path: Path) -> None:
    path, _ = write_relay_settings(wiring, tmp_path, {})
    shown = await run_relay("config", "-c", str(path))
    assert (shown.status, shown.stderr) == (0, "")
    postfix = wired(wiring, {})
    try:
        assert postfix.warnings() == ""
    finally:
        postfix.close()
