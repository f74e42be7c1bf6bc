"""What a scripted peer can be told to do wrong: an action, at a step of the dialogue, for some of the visits there."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TypeAlias


class Step(enum.StrEnum):
    """Where in the dialogue. Each is visited before the usual reply of that step is said."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "dot"
    """The content is there, nothing is recorded as accepted yet."""
    REPLY = "reply"
    """The message is recorded as accepted, the client does not know it yet."""
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"


class HangUpError(Exception):
    """Ends the session at once."""


class Caller(Protocol):
    """What a fault sees of a session."""

    number: int
    writer: asyncio.StreamWriter


Action: TypeAlias = Callable[[Caller], Awaitable[bytes | None]]
"""Gives the reply to say instead of the usual one, or None to go on to the next action, at last the usual reply."""


def say(reply: bytes) -> Action:
    """Say this instead of the usual reply. Any bytes, without the last CRLF: also garbage, also several lines."""

    async def action(_: Caller) -> bytes:
        return reply

    return action


def wait(gate: asyncio.Event) -> Action:
    """Go on only when the gate is open."""

    async def action(_: Caller) -> None:
        await gate.wait()

    return action


def hang() -> Action:
    """Never answer again, and keep the connection."""
    return wait(asyncio.Event())


def drop() -> Action:
    """Close the connection without a word."""

    async def action(_: Caller) -> NoReturn:
        raise HangUpError

    return action


def reset() -> Action:
    """Break the connection with RST."""

    async def action(caller: Caller) -> NoReturn:
        break_off(caller.writer)
        raise HangUpError

    return action


def say_and_drop(reply: bytes) -> Action:
    """Say this and close, as a server does that says 421."""

    async def action(caller: Caller) -> NoReturn:
        caller.writer.write(reply + b"\r\n")
        await caller.writer.drain()
        raise HangUpError

    return action


def break_off(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST: the other side loses also what it has not read yet."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Fault:
    """Actions at a step, for those visits that match."""

    step: Step
    actions: tuple[Action, ...]
    matching: bytes = b""
    """Only where the command contains this, in any case of letters; at dot and reply the content is looked at."""
    session: int | None = None
    """Only in the session of this number."""
    skip: int = 0
    """Let so many matching visits pass first."""
    times: int | None = 1
    """For so many visits; None is for all."""
    visits: int = field(default=0, init=False)

    def takes(self, step: Step, session: int, subject: bytes) -> bool:
        """Say whether this visit is meant, and count it."""
        if step is not self.step or self.session not in (None, session):
            return False
        if self.matching.lower() not in subject.lower():
            return False
        self.visits += 1
        return self.visits > self.skip and (self.times is None or self.visits <= self.skip + self.times)
