"""The two ends of a throughput measurement, each a process: the sink that accepts all mail, and the clients.

python bench/traffic.py sink
python bench/traffic.py send PORT MESSAGES CLIENTS MESSAGES_PER_CONNECTION
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from itertools import chain, islice
from typing import TYPE_CHECKING

import uvloop
from fingerprint import notification

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
SINK_REPLIES = {b"DATA": b"354 go on\r\n", b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"}


class Sink(asyncio.Protocol):
    """The smallest SMTP server that a relay can deliver to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.in_content = False
        self.transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        replies = []
        while True:
            end = self.buffer.find(b"\r\n.\r\n" if self.in_content else b"\r\n")
            if end < 0:
                break
            verb = b"." if self.in_content else self.buffer[:4].upper()
            self.buffer = self.buffer[end + (5 if self.in_content else 2) :]
            self.in_content = verb == b"DATA"
            replies.append(SINK_REPLIES.get(verb, b"250 ok\r\n"))
            if verb == b"QUIT":
                self.transport.close()
        if replies:
            self.transport.write(b"".join(replies))


async def sink() -> None:
    """Prints the port, and accepts mail until the process ends."""
    server = await asyncio.get_running_loop().create_server(Sink, HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client(asyncio.Protocol):
    """Sends messages on one connection, each command after the reply to the one before."""

    def __init__(self, messages: Iterator[bytes]) -> None:
        self.commands = dialogue(messages)
        self.done = asyncio.get_running_loop().create_future()
        self.reply = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.reply += data
        if not re.search(rb"(?:\A|\n)\d\d\d [^\n]*\n\Z", self.reply):
            return
        command = next(self.commands, b"")
        if self.reply[:1] not in b"23":
            self.done.set_exception(RuntimeError(self.reply))
            command = b""
        self.reply = b""
        if command:
            self.transport.write(command)
        else:
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def dialogue(messages: Iterator[bytes]) -> Iterator[bytes]:
    """Yields what a client says on one connection."""
    yield b"EHLO me\r\n"
    for message in messages:
        yield b"MAIL FROM:<a@example.org>\r\n"
        yield b"RCPT TO:<b@example.org>\r\n"
        yield b"DATA\r\n"
        yield message + b".\r\n"
    yield b"QUIT\r\n"


async def send(port: int, count: int, clients: int, per_connection: int) -> None:
    """Sends so many notifications of 10 KB, all different, and prints the seconds that this took."""
    template = notification()
    run = os.urandom(6).hex().encode()
    loop = asyncio.get_running_loop()
    unsent = iter(range(count))

    def messages(first: int) -> Iterator[bytes]:
        for number in chain([first], islice(unsent, per_connection - 1)):
            yield template.replace(b"Subject: ", b"Subject: %d " % number, 1).replace(b"Watch", run, 1)

    async def one_client() -> None:
        for first in unsent:
            _, client = await loop.create_connection(lambda first=first: Client(messages(first)), HOST, port)  # type: ignore[misc]
            await client.done

    begun = time.perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sink"]:
            uvloop.run(sink())
        case ["send", *numbers]:
            uvloop.run(send(*map(int, numbers)))
