"""How many messages a second one relay process takes, as a ratio to a naive relay in the same run.

    python bench/throughput.py [MESSAGES [ROUNDS [CLIENTS]]]

10 KB notifications, all different, one recipient, a connection for each. Relays, sink and clients are processes of
their own. CPU per message says more than messages per second where the machine is busy with other things.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))  # the relay, where it is not installed

from fingerprint import notification

HOST = "127.0.0.1"
TICKS = os.sysconf("SC_CLK_TCK")


class Sink(asyncio.Protocol):
    """The least that can be taken for an MTA."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.content = False
        self.transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        replies = []
        while True:
            end = self.buffer.find(b"\r\n.\r\n" if self.content else b"\r\n")
            if end < 0:
                break
            verb = b"." if self.content else self.buffer[:4].upper()
            self.buffer = self.buffer[end + (5 if self.content else 2) :]
            self.content = verb == b"DATA"
            replies.append(
                {b"DATA": b"354 go on\r\n", b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"}.get(
                    verb, b"250 ok\r\n"
                )
            )
            if verb == b"QUIT":
                self.transport.close()
        if replies:
            self.transport.write(b"".join(replies))


async def sink() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def naive(upstream: int) -> None:
    """What one writes in an evening: aiosmtpd's handler, and aiosmtplib with a connection per message."""
    import aiosmtplib
    from aiosmtpd.smtp import SMTP

    class Handler:
        async def handle_DATA(self, _: SMTP, __: object, envelope: object) -> str:  # noqa: N802
            await aiosmtplib.send(
                envelope.content,  # type: ignore[attr-defined]
                sender=envelope.mail_from,  # type: ignore[attr-defined]
                recipients=envelope.rcpt_tos,  # type: ignore[attr-defined]
                hostname=HOST,
                port=upstream,
            )
            return "250 OK"

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), hostname="naive", loop=loop), HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """One message on one connection, each command after the reply to the one before."""

    def __init__(self, content: bytes) -> None:
        self.steps = [b"EHLO me\r\n", b"MAIL FROM:<a@example.org>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n"]
        self.steps += [content, b"QUIT\r\n"]
        self.steps.reverse()
        self.done = asyncio.get_running_loop().create_future()
        self.last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.last += data
        if not re.search(rb"(?:\A|\n)\d\d\d [^\n]*\n\Z", self.last):
            return
        if self.last[:1] not in b"23":
            self.done.set_exception(RuntimeError(self.last))
            self.steps.clear()
        self.last = b""
        if self.steps:
            self.transport.write(self.steps.pop())
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, messages: int, clients: int) -> None:
    """Send so many, and print the seconds that it took."""
    template = notification()
    numbers = iter(range(messages))
    run = os.urandom(6).hex()
    loop = asyncio.get_running_loop()

    async def one_client() -> None:
        for number in numbers:
            content = template.replace(b"Subject: ", b"Subject: %d " % number, 1).replace(b"Watch", run.encode(), 1)
            _, client = await loop.create_connection(lambda content=content: Client(content + b".\r\n"), HOST, port)  # type: ignore[misc]
            await client.done

    begun = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    print(time.perf_counter() - begun, flush=True)


@dataclass
class Part:
    """A process of ours."""

    process: subprocess.Popen[str]
    port: int

    @property
    def cpu(self) -> float:
        """Seconds it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(*arguments: str) -> Part:
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return Part(process, int(process.stdout.readline()))


def start_relay(upstream: int) -> Part:
    flags = ["--listen", f"{HOST}:0", "--http", "", "--store", "memory:", "--upstream", f"smtp://{HOST}:{upstream}"]
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it goes with this process
    process = subprocess.Popen(
        [sys.executable, "-m", "relay", "serve", *flags],
        stdout=log,
        stderr=log,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        log.flush()
        text = Path(f"/proc/{os.getpid()}/fd/{log.fileno()}").read_text()
        if found := re.search(rf"{re.escape(HOST)}:(\d+)", text.replace(f"{HOST}:{upstream}", "")):
            return Part(process, int(found[1]))
        time.sleep(0.05)
    process.kill()
    raise SystemExit(f"the relay did not start:\n{text}")


def measure(part: Part, messages: int, clients: int) -> tuple[float, float]:
    """Give messages a second, and CPU milliseconds a message."""
    before = part.cpu
    ran = subprocess.run(
        [sys.executable, __file__, "load", str(part.port), str(messages), str(clients)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return messages / float(ran.stdout), (part.cpu - before) * 1000 / messages


def main(messages: int = 3000, rounds: int = 3, clients: int = 20) -> None:
    parts = [catcher := start("sink")]
    try:
        rivals = {"naive": start("naive", str(catcher.port)), "relay": start_relay(catcher.port)}
        parts += rivals.values()
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
        for part in rivals.values():
            measure(part, messages // 10, clients)
        for _ in range(rounds):
            for name, part in rivals.items():
                found[name].append(measure(part, messages // (4 if name == "naive" else 1), clients))
    finally:
        for part in reversed(parts):
            part.end()
    middle = {name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in found.items()}
    for name, (rate, cpu) in middle.items():
        print(f"{name}: {rate:7.0f} messages a second, {cpu:.2f} ms of CPU a message")
    print(f"ratio: {middle['relay'][0] / middle['naive'][0]:.1f} times the messages, "
          f"{middle['naive'][1] / middle['relay'][1]:.1f} times less CPU")  # fmt: skip


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sink"]:
            uvloop.run(sink())
        case ["naive", port]:
            asyncio.run(naive(int(port)))
        case ["load", port, messages, clients]:
            uvloop.run(load(int(port), int(messages), int(clients)))
        case numbers:
            main(*map(int, numbers))
