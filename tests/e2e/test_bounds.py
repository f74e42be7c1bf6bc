"""One client's messages cost neither the memory of the host nor the time of the other clients."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from parts.client import RawClient, stuff
from parts.faults import Step, wait
from parts.logged import wait_upstream
from parts.ports import HOST
from parts.waiting import until_told

if TYPE_CHECKING:
    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.relay_process import RelayProcess

MIB = 1 << 20
SENDER = b"sender@example.test"
PROMISED = 0.25
"""Seconds in which other sessions are answered, whatever one client sends."""
BUDGET = 64 * MIB
RULES = "".join(
    f"[[rules]]\nname = 'rule {number}'\nrecipient = '^user{number}@'\naction = 'exempt'\n" for number in range(300)
)
HEAVY = "[[rules]]\nname = 'heavy'\nsubject = '(?:(?:a{1,30}){1,30})b'\naction = 'exempt'\n"
HEADER = b"From: a@example.test\r\nSubject: %b\r\nContent-Type: %b\r\n\r\n"
MANY_RECIPIENTS = [b"someone%d@example.test" % number for number in range(1000)]


def resident(relay: RelayProcess) -> int:
    """Returns the bytes of physical memory that the process uses."""
    status = Path(f"/proc/{relay.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


async def test_the_process_grows_within_a_small_factor_of_the_budget(
    start_relay: StartRelay, peer: ScriptedPeer
) -> None:
    gate = asyncio.Event()
    peer.on(Step.DOT, wait(gate), times=None)
    settings = {"limits.memory": "64MiB", "limits.sessions": 40}
    relay = await start_relay(upstream=peer.url, settings=settings)
    await wait_upstream(relay, "up")
    before = resident(relay)
    wire = stuff(b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * (8 * MIB // 78))

    async def leave_after_dot(number: int) -> bool:
        client = await RawClient.open(relay.port)
        await client.begin(SENDER, b"user%d@example.test" % (number % 2))
        accepted = (await client.command(b"DATA")).code == 354
        if accepted:
            await client.send_raw(wire)
            await client.half_close()
        await client.reset()
        return accepted

    accepted = sum(await asyncio.gather(*(leave_after_dot(number) for number in range(30))))
    metrics = await relay.metrics()
    assert accepted >= 1
    assert metrics.value("smtp_dedup_in_flight_bytes") <= metrics.value("smtp_dedup_in_flight_limit_bytes") == BUDGET
    assert resident(relay) - before < 3 * BUDGET
    gate.set()

    async def all_given_back() -> bool:
        return (await relay.metrics()).value("smtp_dedup_in_flight_bytes") == 0

    await until_told(all_given_back, "the memory given back")


class Watch:
    """Measures in a thread how long NOOP in another session and `/livez` take at most."""

    def __init__(self, relay: RelayProcess) -> None:
        self.longest = 0.0
        self.rounds = 0
        self._livez = f"http://{HOST}:{relay.http_port}/livez"
        self._session = socket.create_connection((HOST, relay.port), 60)
        self._session.recv(1000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        self._session.close()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            for ask in (self._noop, self._get_livez):
                start = time.perf_counter()
                ask()
                self.longest = max(self.longest, time.perf_counter() - start)
            self.rounds += 1

    def _noop(self) -> None:
        self._session.sendall(b"NOOP\r\n")
        assert self._session.recv(1000).startswith(b"250 ")

    def _get_livez(self) -> None:
        with urllib.request.urlopen(self._livez, timeout=60) as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("content", "recipients", "rules"),
    [
        (HEADER % (b"x", b"text/html") + b"a://&b " * 140_000, [b"one@example.test"], ""),
        (HEADER % (b"x", b"text/plain") + b"\n." * 8_000_000, [b"one@example.test"], ""),
        (HEADER % (b"x", b"multipart/mixed; boundary=b") + b"--b\r\n\r\n" * 6_000, [b"one@example.test"], ""),
        (HEADER % (b"x", b"text/plain") + b"hello", MANY_RECIPIENTS, RULES),
        (HEADER % (b"a" * 60_000, b"text/plain") + b"hello", [b"one@example.test"], HEAVY),
    ],
    ids=["links", "lone dots", "parts", "recipients times rules", "heavy pattern"],
)
async def test_no_message_freezes_the_others(
    start_relay: StartRelay, tmp_path: Path, content: bytes, recipients: list[bytes], rules: str
) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(rules)
    settings = {"limits.commands": 0}  # for the NOOPs of the watch
    relay = await start_relay("-c", str(config), upstream=f"maildir:{tmp_path}/mail", settings=settings)
    await wait_upstream(relay, "up")
    wire = stuff(content)
    watch = Watch(relay)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watch)
        clients = [await stack.enter_async_context(await RawClient.open(relay.port)) for _ in range(3)]
        for client in clients:
            await client.command(b"EHLO client.example.test")
            await client.send_raw(b"MAIL FROM:<%b>\r\n" % SENDER)
            await client.send_raw(b"".join(b"RCPT TO:<%b>\r\n" % recipient for recipient in recipients))
            for _ in range(len(recipients) + 1):
                assert (await client.read_reply()).code == 250
            assert (await client.command(b"DATA")).code == 354
            await client.send_raw(wire)
        assert [(await client.read_reply(seconds=60)).code for client in clients] == [250] * len(clients)
    assert watch.rounds
    assert watch.longest < 3 * PROMISED
