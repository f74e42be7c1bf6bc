"""The end of a relay: its limits hold whatever store, disk, log or upstream do; and signals that do not end it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient, send
from parts.faults import Step, hang, wait
from parts.hung_disk import hung_disk
from parts.logged import wait_logged, wait_messages
from parts.ports import HOST, free_port, wait_for_port
from parts.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

SENDER, USER = b"sender@example.test", b"user@example.test"
DRAIN = 2.0
"""Seconds of `limits.drain`. The process ends one second later at the latest."""
SETTINGS = {"limits.drain": f"{DRAIN:g}s"}


def mail(number: int) -> bytes:
    return b"Subject: %d\r\n\r\nhello %d\r\n" % (number, number)


async def offer(relay: RelayProcess, number: int = 1) -> RawClient:
    """Sends a message with its final dot, and does not wait for the reply."""
    client = await RawClient.open(relay.port)
    assert [answer.code for answer in await client.begin(SENDER, USER)] == [250]
    assert (await client.command(b"DATA")).code == 354
    await client.send_raw(mail(number) + b".\r\n")
    return client


async def ends_within(relay: RelayProcess, limit: float) -> int:
    """Sends SIGTERM and returns the exit status. Fails unless the relay ends within three times the limit."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    relay.terminate()
    status = await relay.wait()
    assert loop.time() - begun < 3 * limit
    return status


# The limits of a shutdown


async def test_an_upstream_that_never_answers(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings=SETTINGS)
    peer.on(Step.DOT, hang(), times=None)
    client = await offer(relay)
    await peer.wait_waiting(Step.DOT)
    assert await ends_within(relay, DRAIN) == 1
    [line] = await wait_messages(relay, 1)
    assert line["recipients"] == {"uncertain": 1}
    await client.close()


async def test_a_store_that_hangs(start_relay: StartRelay, peer: ScriptedPeer, redis_server: RedisServer) -> None:
    relay = await start_relay(upstream=peer.url, store=redis_server.url, settings=SETTINGS | {"store.timeout": "200ms"})
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    client = await offer(relay)
    await peer.wait_waiting(Step.DOT)
    redis_server.pause()
    relay.terminate()
    gate.set()
    assert (await client.read_reply()).code == 250
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await relay.wait() == 0
    assert loop.time() - begun < 3 * DRAIN
    assert len(await wait_messages(relay, 1)) == 1
    await client.close()


async def test_a_store_on_a_disk_that_hangs(start_relay: StartRelay, peer: ScriptedPeer, tmp_path: Path) -> None:
    relay = await start_relay(upstream=peer.url, settings=SETTINGS | {"store.url": f"sqlite:{tmp_path}/relay.db"})
    with hung_disk(tmp_path):
        assert (await send(relay.port, SENDER, [USER], mail(1))).ok
        assert await ends_within(relay, DRAIN) == 0


async def test_kept_copies_on_a_disk_that_hangs(start_relay: StartRelay, peer: ScriptedPeer, tmp_path: Path) -> None:
    relay = await start_relay(upstream=peer.url, settings=SETTINGS | {"record.keep": f"maildir:{tmp_path}"})
    assert (await send(relay.port, SENDER, [USER], mail(1))).ok
    with hung_disk(tmp_path):
        # A repeat, whose copy is kept. The client would wait for that for 10 s.
        async with await RawClient.open(relay.port) as client:
            await client.begin(SENDER, USER)
            await client.command(b"DATA")
            await client.send_raw(mail(1) + b".\r\n")
            assert await ends_within(relay, DRAIN) == 1


@asynccontextmanager
async def stalled_reader(peer: ScriptedPeer, **settings: str) -> AsyncIterator[tuple[RelayProcess, int]]:
    """A relay whose log goes to a pipe that no process reads, and which is full; and the descriptor of its reader."""
    relay = RelayProcess(upstream=peer.url, settings=SETTINGS | settings)
    os.mkfifo(relay.stderr_file)
    reader = os.open(relay.stderr_file, os.O_RDWR | os.O_NONBLOCK)
    try:
        async with relay:
            async with await RawClient.open(relay.port) as client:
                for number in range(300):  # with 330 bytes each: more than the pipe holds
                    assert (await client.begin(SENDER, USER))[0].code == 250
                    assert (await client.command(b"DATA")).code == 354
                    await client.send_raw(mail(number) + b".\r\n")
                    assert (await client.read_reply()).code == 250
            yield relay, reader
    finally:
        os.close(reader)


async def test_a_log_whose_reader_has_stalled(peer: ScriptedPeer) -> None:
    async with stalled_reader(peer) as (relay, _):
        assert (await relay.metrics()).value("smtp_dedup_log_lines_dropped_total") == 0
        assert await ends_within(relay, DRAIN) == 0


async def test_a_second_signal_leaves_a_line_in_the_log(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url)
    for number in (signal.SIGTERM, signal.SIGINT):  # two equal ones would be one if they are at once
        os.kill(relay.pid, number)
    assert await relay.wait() == 1
    assert '"event": "ended at once by a second signal", "signal": "SIG' in relay.stderr()


async def test_a_second_signal_while_the_reader_of_the_log_has_stalled(peer: ScriptedPeer) -> None:
    async with stalled_reader(peer, **{"limits.drain": "60s"}) as (relay, _):
        peer.on(Step.DOT, hang(), times=None)
        client = await offer(relay, 1000)
        await peer.wait_waiting(Step.DOT)
        idle = await RawClient.open(relay.port)
        relay.terminate()
        assert (await idle.read_reply()).code == 421
        assert await ends_within(relay, 1.0) == 1
        await client.close()
        await idle.close()


# Signals that do not end it


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
async def test_other_signals_end_nothing_and_are_logged(
    start_relay: StartRelay, peer: ScriptedPeer, number: signal.Signals
) -> None:
    relay = await start_relay(upstream=peer.url)
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate))
    client = await offer(relay)
    await peer.wait_waiting(Step.DOT)
    os.kill(relay.pid, number)
    text = '"settings reloaded"' if number is signal.SIGHUP else f'"signal has no effect", "signal": "{number.name}"'
    await wait_logged(relay, text)
    gate.set()
    assert (await client.read_reply()).code == 250
    await client.close()
    relay.terminate()
    assert await relay.wait() == 0


# Descriptors


def null_devices(pid: int) -> int:
    """Returns how many of the standard descriptors are the null device."""
    return sum(Path(f"/proc/{pid}/fd/{number}").readlink() == Path(os.devnull) for number in range(3))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams(peer: ScriptedPeer, tmp_path: Path, closed: str) -> None:
    port = free_port()
    command = f'exec "$0" -m relay serve --listen {HOST}:{port} --http "" --upstream {peer.url} {closed}'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command, sys.executable),
        cwd=Path(__file__).parents[2],
        env=os.environ | {"STATE_DIRECTORY": str(tmp_path)},
    )
    try:
        await wait_for_port(port)
        assert (await send(port, SENDER, [USER], mail(1))).ok
        assert null_devices(process.pid) >= closed.count("&-")
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_limit_on_open_files_is_raised(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        relay = await start_relay(upstream=peer.url)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(relay.pid, resource.RLIMIT_NOFILE) == (hard, hard)
