"""Sockets that a service manager holds: a restart refuses no client. The test is the service manager."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Self

import aiohttp
import pytest
from parts.client import RawClient, send
from parts.environment import isolated
from parts.ports import HOST, free_port
from parts.relay_process import RelayProcess
from parts.waiting import LONGEST, until

from relay.admin.client import running_relay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from parts.peer import ScriptedPeer

FIRST = 3
MAILS = 120


def listening(address: str = f"{HOST}:0") -> socket.socket:
    if address.startswith("/"):
        made = socket.socket(socket.AF_UNIX)
        made.bind(address)
        made.listen()
        return made
    return socket.create_server((HOST, 0), backlog=512)


class Managed:
    """`relay serve` as a service manager starts it: with sockets, and a socket for its notifications."""

    def __init__(
        self, folder: Path, sockets: Sequence[tuple[str, socket.socket]], *arguments: str, wait: bool = True
    ) -> None:
        self._wait = wait
        self._folder = folder
        self._sockets = sockets
        self._arguments = arguments
        self.watchdog_usec = ""
        self.log = folder / "log"
        self.told: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(folder / "notify"))
        self._notified.setblocking(False)

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._notified, self._read)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._notified)
        self._notified.close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _read(self) -> None:
        self.told.append(self._notified.recv(4096).decode())

    async def start(self) -> None:
        """Starts the process. `LISTEN_PID` is that of the process: a shell sets it, and becomes the relay."""
        names = ":".join(name for name, _ in self._sockets)
        variables = {"NOTIFY_SOCKET": str(self._folder / "notify"), "LISTEN_FDNAMES": names}
        variables |= {"LISTEN_FDS": str(len(self._sockets)), "WATCHDOG_USEC": self.watchdog_usec}
        held = [each.fileno() for _, each in self._sockets]

        def pass_sockets() -> None:
            copies = [os.dup(descriptor) for descriptor in held]
            for number, copy in enumerate(copies):
                os.dup2(copy, FIRST + number, inheritable=True)

        self.told.clear()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", sys.executable, "-m", "relay", "serve"),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=log,
                env=isolated(os.environ, self._folder) | variables,
                preexec_fn=pass_sockets,
                close_fds=False,
            )
        if self._wait:
            await until(self.is_ready, f"READY=1; {self.log.read_text()}")

    def is_ready(self) -> bool:
        return any("READY=1" in each.split("\n") for each in self.told)

    async def stop(self) -> int:
        """Sends SIGTERM. Returns the exit status."""
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(LONGEST):
            return await self.ended()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        assert self._process is not None
        return await self._process.wait()


def mail(number: int) -> bytes:
    return f"From: a@example.test\r\nSubject: {number}\r\n\r\nmail {number}\r\n".encode()


async def test_a_restart_refuses_no_client(peer: ScriptedPeer, tmp_path: Path) -> None:
    smtp, http = listening(), listening()
    port = smtp.getsockname()[1]
    async with Managed(tmp_path, [("smtp", smtp), ("http", http)], "--upstream", peer.url) as relay:
        sending = [asyncio.create_task(send_when(number, port)) for number in range(MAILS)]
        for _ in range(2):
            accepted = len(peer.accepted)
            await peer.wait_accepted(accepted + 5)
            assert await relay.stop() == 0
            await relay.start()
        codes = await asyncio.gather(*sending)
    assert codes == [250] * MAILS
    assert len(peer.accepted) == MAILS
    smtp.close()
    http.close()


async def send_when(number: int, port: int) -> int:
    """Sends a mail 25 ms after the one before, as an application under load does."""
    await asyncio.sleep(number / 40)
    return (await send(port, b"a@example.test", [b"b@example.test"], mail(number))).final.code


async def test_clients_wait_while_no_relay_runs(peer: ScriptedPeer, tmp_path: Path) -> None:
    smtp = listening()
    async with Managed(tmp_path, [("smtp", smtp)], "--upstream", peer.url, "--http", "") as relay:
        assert await relay.stop() == 0
        waiting = asyncio.create_task(send(smtp.getsockname()[1], b"a@example.test", [b"b@example.test"], mail(1)))
        await relay.start()
        assert (await waiting).final.code == 250
    smtp.close()


async def test_each_socket_is_served_by_its_name(peer: ScriptedPeer, tmp_path: Path) -> None:
    path = str(tmp_path / "smtp.sock")
    sockets = [("smtp", listening()), ("smtp", listening(path)), ("smtps", listening()), ("http", listening())]
    ports = [each.getsockname()[1] for _, each in (sockets[0], *sockets[2:])]
    admin = tmp_path / "admin.sock"
    sockets.append(("admin", listening(str(admin))))
    flags = ("--upstream", peer.url, "--set", "tls.self_signed=true")
    async with Managed(tmp_path, sockets, *flags) as relay:
        assert (await send(ports[0], b"a@example.test", [b"b@example.test"], mail(1))).final.code == 250
        reader, writer = await asyncio.open_unix_connection(path)
        assert (await reader.readline()).startswith(b"220 ")
        writer.close()
        trusting = ssl.create_default_context(cafile=str(tmp_path / "self-signed.pem"))
        async with await RawClient.open(ports[1], tls=trusting) as client:
            assert client.greeting.code == 220
        async with aiohttp.ClientSession() as web, web.get(f"http://{HOST}:{ports[2]}/livez") as response:
            assert response.status == 200
        async with running_relay(admin) as found:
            assert (await found.json("GET", "/status", 10.0))["listening"]["admin"] == str(admin)
        await until(lambda: "serving" in relay.log.read_text(), "the line in the log")
        text = relay.log.read_text()
        assert f'"listen": "{HOST}:{ports[0]}, unix:{path}"' in text
        assert f'"listen_tls": "{HOST}:{ports[1]}"' in text
    for _, each in sockets:
        each.close()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "relay.socket",
            'is called "relay.socket"; write FileDescriptorName= in its socket unit, with one of smtp, smtps',
        ),
        ("smtps", 'passed a socket "smtps", which needs tls.certificate'),
        ("admin", 'passed a socket "admin" that is no Unix socket'),
    ],
)
async def test_a_socket_that_cannot_be_served_is_an_error(
    peer: ScriptedPeer, tmp_path: Path, name: str, says: str
) -> None:
    held = listening()
    async with Managed(tmp_path, [(name, held)], "--upstream", peer.url, wait=False) as relay, asyncio.timeout(LONGEST):
        assert await relay.ended() == 78
    assert says in relay.log.read_text()
    held.close()


async def test_a_descriptor_that_does_not_listen_is_an_error(peer: ScriptedPeer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        async with Managed(tmp_path, [("smtp", datagrams)], "--upstream", peer.url, wait=False) as relay:
            async with asyncio.timeout(LONGEST):
                assert await relay.ended() == 78
    assert 'descriptor 3 ("smtp"), which the service manager passed, does not listen' in relay.log.read_text()


async def test_the_service_manager_hears_what_the_relay_does(peer: ScriptedPeer, tmp_path: Path) -> None:
    smtp = listening()
    relay = Managed(tmp_path, [("smtp", smtp)], "--upstream", peer.url, "--http", "")
    relay.watchdog_usec = "200000"
    async with relay:
        assert "STATUS=listener listening, " in relay.told[0]
        for _ in range(2):
            before = len(relay.told)
            await until(lambda seen=before: any("WATCHDOG=1" in each for each in relay.told[seen:]), "a sign of life")
        assert any("upstream up, store up; sessions: 0, waiting twins: 0" in each for each in relay.told)
        relay.signal(signal.SIGHUP)
        await until(lambda: any(each.startswith("RELOADING=1\nMONOTONIC_USEC=") for each in relay.told), "a reload")
        begun = next(at for at, each in enumerate(relay.told) if each.startswith("RELOADING=1"))
        await until(lambda: any(each.startswith("READY=1\nSTATUS=") for each in relay.told[begun:]), "its end")
        assert await relay.stop() == 0
        await until(lambda: any(each.startswith("STOPPING=1") for each in relay.told), "the end")
    smtp.close()


async def test_two_relays_share_an_address(peer: ScriptedPeer, tmp_path: Path) -> None:
    settings = {"listen.reuse_port": "true", "store.url": f"sqlite:{tmp_path}/relay.db"}
    first, second = (RelayProcess(upstream=peer.url, settings=settings) for _ in "ab")
    second.port = first.port
    second.arguments[second.arguments.index("--listen") + 1] = f"{HOST}:{first.port}"
    async with first, second:
        sent = [await send(first.port, b"a@example.test", [b"b@example.test"], mail(n)) for n in range(40)]
        assert {each.final.code for each in sent} == {250}
        forwarded = [(await relay.metrics()).outcomes().get("forwarded", 0) for relay in (first, second)]
        assert sum(forwarded) == 40
        assert min(forwarded) > 0, "the system divides the clients"


async def test_without_reuse_port_the_second_relay_ends(peer: ScriptedPeer) -> None:
    port = free_port()
    async with RelayProcess("--listen", f"{HOST}:{port}", upstream=peer.url, store="memory:"):
        other = RelayProcess("--listen", f"{HOST}:{port}", upstream=peer.url, store="memory:")
        with pytest.raises(RuntimeError, match="Address already in use, by a relay"):
            await other.start()
        await other.close()
