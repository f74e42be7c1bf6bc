"""SIGHUP to a real relay: settings change while mail flows, and a wrong file changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient, send
from parts.logged import lines
from parts.peer import ScriptedPeer
from parts.ports import HOST
from parts.relay_process import RelayProcess
from parts.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

SENDER = b"a@example.test"
MAIL = b"From: a@example.test\r\nSubject: x\r\n\r\nhello\r\n"
CLIENTS = 6
EACH = 4
"""Messages that each client sends at least between two reloads."""


class ReloadedRelay(RelayProcess):
    """A relay whose settings, except for its ports and its store, are in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(upstream="", store="memory:")
        self.file = folder / "relay.toml"
        self.arguments = ["-c", str(self.file), "--http", f"{HOST}:{self.http_port}", "--store", "memory:"]
        self.reloads = 0

    def write(self, text: str) -> None:
        self.file.write_text(f'listen.address = "{HOST}:{self.port}"\n{text}')

    async def reload(self, text: str) -> None:
        """Writes the file and waits for the end of a reload."""
        self.reloads += 1
        await asyncio.to_thread(self.write, text)
        os.kill(self.pid, signal.SIGHUP)
        ended = ("settings reloaded", "settings not reloaded", "need a restart")  # the last one at level warning
        await until(lambda: sum(map(self.stderr().count, ended)) == self.reloads, f"reload {self.reloads}")


@pytest.fixture
def relay(tmp_path: Path) -> ReloadedRelay:
    return ReloadedRelay(tmp_path)


async def test_reloads_under_load_refuse_nothing_and_lose_nothing(peer: ScriptedPeer, relay: ReloadedRelay) -> None:
    numbers, sent = itertools.count(), Counter[bytes]()
    codes = Counter[int]()
    running = True

    async def send_on(client: RawClient) -> None:
        """Sends on one connection, and each time on a new one too."""
        while running:
            for is_new in (False, True):
                recipient = b"user%d@example.test" % next(numbers)
                if is_new:
                    code = (await send(relay.port, SENDER, [recipient], MAIL)).final.code
                else:
                    await client.begin(SENDER, recipient)
                    code = (await client.content(MAIL)).code
                codes[code] += 1
                sent[recipient] += 1

    async with ScriptedPeer() as other:
        relay.write(f'upstream.url = "{peer.url}"\n')
        async with relay:
            clients = [await RawClient.open(relay.port) for _ in range(CLIENTS)]
            tasks = [asyncio.create_task(send_on(client)) for client in clients]
            for upstream, more in (
                (other, 'dedup.window = "1h"\n'),
                (peer, "dedup.window = 5\n"),  # a mistake: no unit
                (peer, 'limits.recipients = 7\n[[rules]]\nname = "new"\nsubject = "^y"\naction = "exempt"\n'),
                (other, 'listen.networks = ["127.0.0.1/32"]\nupstream.connections = 3\n'),
                (other, 'record.addresses = true\ndedup.mode = "observe"\n'),
            ):
                before = len(sent)
                await until(lambda before=before: len(sent) >= before + CLIENTS * EACH, "mail between two reloads")
                await relay.reload(f'upstream.url = "{upstream.url}"\n{more}')
            running = False
            await asyncio.gather(*tasks)
            for client in clients:
                await client.close()
            metrics = await relay.metrics()
            assert relay.stderr().count("settings not reloaded") == 1
        assert set(codes) == {250}
        assert peer.copies() + other.copies() == sent
        assert peer.copies()
        assert other.copies()
    assert metrics.value("smtp_dedup_sessions_refused_total") == 0
    assert metrics.messages() == {"2xx": len(sent)}
    assert metrics.value("smtp_dedup_faults_total") == 0


async def test_what_changed_is_in_force_and_what_needs_a_restart_is_named(relay: ReloadedRelay, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("one\n")
    async with ScriptedPeer(credentials=(b"u", b"one")) as upstream:
        url = upstream.url.replace("smtp://", "smtp://u@")
        base = f'upstream.url = "{url}"\nupstream.password_file = "{password}"\nupstream.patience = "0s"\n'
        relay.write(base)

        async def reply_to(*recipients: bytes) -> tuple[int, list[int]]:
            result = await send(relay.port, SENDER, recipients, MAIL)
            return result.final.code, [each.code for each in result.rcpt]

        async def successful() -> float:
            return (await relay.metrics()).value("smtp_dedup_config_last_reload_successful")

        async with relay:
            assert await reply_to(b"b@example.test", b"c@example.test") == (250, [250, 250])
            assert await successful() == 1

            await asyncio.to_thread(password.write_text, "two\n")
            upstream.credentials = (b"u", b"two")
            await relay.reload(base + "limits.recipients = 1\n")
            assert await reply_to(b"d@example.test", b"e@example.test") == (250, [250, 452])

            await relay.reload(base + "limits.recipents = 1\n")
            assert await successful() == 0
            assert await reply_to(b"f@example.test", b"g@example.test") == (250, [250, 452])
            [line] = [line for line in lines(relay) if line["event"].startswith("settings not reloaded")]
            assert "did you mean limits.recipients?" in line["problems"][0]

            await relay.reload(base + 'store.timeout = "2s"\nlog.format = "human"\nlog.level = "warning"\n')
            assert await successful() == 1
            assert await reply_to(b"h@example.test", b"i@example.test") == (250, [250, 250])
            json_lines, _, after = relay.stderr().partition("settings that need a restart have changed")
            assert "store.timeout" in after
            assert json_lines.count('"event": "message"') == 3
            assert "message" not in after

            await relay.reload(base + 'listen.networks = ["192.0.2.0/24"]\n')
            async with await RawClient.open(relay.port) as refused:
                assert refused.greeting.code == 554
