"""Faults of the scripted peer: actions at a step of the dialogue, for some of the sessions that reach it."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TypeAlias


class Step(enum.StrEnum):
    """A step of the dialogue. Faults act before the usual reply of the step."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "dot"
    """The content has arrived, and is not yet recorded as accepted."""
    REPLY = "reply"
    """The message is recorded as accepted, and the client has no reply yet."""
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"


class HangUpError(Exception):
    """Ends the session at once."""


class Caller(Protocol):
    """The part of a session that an action uses."""

    number: int
    writer: asyncio.StreamWriter


Action: TypeAlias = Callable[[Caller], Awaitable[bytes | None]]
"""Returns the reply to send instead of the usual one, or None to continue with the next action or the usual reply."""


def say(reply: bytes) -> Action:
    """Replies with these bytes, which may be garbage or several lines. They have no CRLF at the end."""

    async def action(_: Caller) -> bytes:
        return reply

    return action


def wait(gate: asyncio.Event) -> Action:
    """Waits until the gate is open."""

    async def action(_: Caller) -> None:
        await gate.wait()

    return action


def hang() -> Action:
    """Never replies, and keeps the connection open."""
    return wait(asyncio.Event())


def drop() -> Action:
    """Closes the connection without a reply."""

    async def action(_: Caller) -> NoReturn:
        raise HangUpError

    return action


def reset() -> Action:
    """Resets the connection (RST)."""

    async def action(caller: Caller) -> NoReturn:
        break_off(caller.writer)
        raise HangUpError

    return action


def say_and_drop(reply: bytes) -> Action:
    """Replies and closes the connection, as servers do after 421."""

    async def action(caller: Caller) -> NoReturn:
        caller.writer.write(reply + b"\r\n")
        await caller.writer.drain()
        raise HangUpError

    return action


def break_off(writer: asyncio.StreamWriter) -> None:
    """Resets a connection (RST), so that the other side loses what it has not read yet."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Fault:
    """Actions at a step, for the visits that match. A visit is one arrival of one session at the step."""

    step: Step
    actions: tuple[Action, ...]
    matching: bytes = b""
    """Text that the command must contain, case-insensitively. At dot and reply: that the content must contain."""
    session: int | None = None
    """The number of the only session that matches; None for all."""
    skip: int = 0
    """Matching visits that pass before the fault acts."""
    times: int | None = 1
    """Visits at which the fault acts; None for all."""
    visits: int = field(default=0, init=False)

    def takes(self, step: Step, session: int, subject: bytes) -> bool:
        """Counts a visit that matches, and returns whether the fault acts."""
        if step is not self.step or self.session not in (None, session):
            return False
        if self.matching.lower() not in subject.lower():
            return False
        self.visits += 1
        return self.visits > self.skip and (self.times is None or self.visits <= self.skip + self.times)
