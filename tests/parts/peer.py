"""An SMTP server that records everything and injects faults: the upstream in tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Self

from parts.faults import Fault, HangUpError, Step, break_off
from parts.peer_session import EXTENSIONS, Message, Session
from parts.ports import HOST, free_port
from parts.waiting import LONGEST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from parts.faults import Action

# A line of content may be as long as a message.
_LONGEST_LINE = 64 * 1024 * 1024


class ScriptedPeer:
    """The server. Its lists only grow: read them after an event that the test awaited with `wait_for`."""

    def __init__(
        self,
        *,
        extensions: Sequence[bytes] = EXTENSIONS,
        tls: ssl.SSLContext | None = None,
        starttls: ssl.SSLContext | None = None,
        credentials: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.port = free_port()
        self.extensions = tuple(extensions)
        self.tls = tls
        self.starttls = starttls
        self.credentials = credentials
        self.users: dict[bytes, bytes] = {}
        """Names and passwords of users who may log in; others may send without a login."""
        self.tokens: dict[bytes, bytes] = {}
        """Names and access tokens of users who may log in with XOAUTH2, and need to."""
        self.sessions: list[Session] = []
        self.received: list[Message] = []
        """Every message whose final dot arrived, whatever the reply was."""
        self.accepted: list[Message] = []
        """Every accepted message, in order, whether or not the client received the reply."""
        self._faults: list[Fault] = []
        self._waiting: Counter[Step] = Counter()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'smtps' if self.tls else 'smtp+starttls' if self.starttls else 'smtp'}://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens. After `stop` it uses the same port and keeps what it has recorded."""
        self._server = await asyncio.start_server(
            self._connected, HOST, self.port, ssl=self.tls, limit=_LONGEST_LINE, backlog=1024
        )

    async def stop(self) -> None:
        """Stops listening and breaks off open connections. Raises the faults of the peer itself."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await server.wait_closed()
        faults = [end for end in ends if isinstance(end, Exception)]
        if faults:
            raise ExceptionGroup("the scripted peer itself failed", faults)

    # Faults

    def on(
        self,
        step: Step,
        *actions: Action,
        matching: bytes = b"",
        session: int | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """Runs `actions` at the step, once unless `times` says otherwise; `fault.visits` counts the matching visits."""
        fault = Fault(step, actions, matching, session, skip, times)
        self._faults.append(fault)
        return fault

    def forgive(self) -> None:
        """Removes all faults. A session that waits in one goes on waiting."""
        self._faults.clear()

    def hang_up(self, *, farewell: bytes = b"", broken: bool = False) -> None:
        """Closes all open sessions, with a last line if given; with RST if `broken`."""
        for session in self.open_sessions:
            if farewell:
                session.writer.write(farewell + b"\r\n")
            if broken:
                break_off(session.writer)
            else:
                session.writer.close()

    # What arrived

    @property
    def open_sessions(self) -> list[Session]:
        return [session for session in self.sessions if session.open]

    def copies(self) -> Counter[bytes]:
        """Returns the number of accepted copies for each recipient, as the client spelled it."""
        return Counter(path for message in self.accepted for path in message.recipients)

    def commands(self, verb: bytes = b"") -> list[bytes]:
        """Returns the commands of all sessions that begin with the verb; `b"."` is a final dot."""
        return [c for session in self.sessions for c in session.commands if c.upper().startswith(verb.upper())]

    def waiting(self, step: Step) -> int:
        """Returns the number of sessions that a fault holds at the step."""
        return self._waiting[step]

    async def wait_for(self, holds: Callable[[], object], what: str, *, seconds: float = LONGEST) -> None:
        """Waits until `holds()` is true. It is called after each event of the peer. Raises `TimeoutError`."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            commands = [c.decode("latin-1") for session in self.sessions for c in session.commands[-3:]]
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}; last commands: {commands}") from None

    async def wait_accepted(self, count: int, *, seconds: float = LONGEST) -> None:
        """Waits until `count` messages have been accepted since the start."""
        await self.wait_for(lambda: len(self.accepted) >= count, f"{count} messages accepted", seconds=seconds)

    async def wait_waiting(self, step: Step, count: int = 1, *, seconds: float = LONGEST) -> None:
        """Waits until faults hold `count` sessions at the step."""
        await self.wait_for(lambda: self._waiting[step] >= count, f"{count} sessions held at {step}", seconds=seconds)

    # Called by the sessions

    async def visit(self, step: Step, session: Session, subject: bytes = b"") -> bytes | None:
        """Returns the reply of a fault at this step, or None for the usual reply."""
        matching = [fault for fault in self._faults if fault.takes(step, session.number, subject)]
        # A session without a fault is not held.
        held = bool(matching)
        self._waiting[step] += held
        await self.tell()
        try:
            for action in (action for fault in matching for action in fault.actions):
                reply = await action(session)
                if reply is not None:
                    return reply
        finally:
            self._waiting[step] -= held
        return None

    async def tell(self) -> None:
        """Makes waiting tests check their condition again."""
        async with self._changed:
            self._changed.notify_all()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self, len(self.sessions) + 1, reader, writer)
        self.sessions.append(session)
        task = asyncio.get_running_loop().create_task(self._serve(session))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        # A failed task is kept: `stop` raises its exception in the test.
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)

    async def _serve(self, session: Session) -> None:
        try:
            with contextlib.suppress(HangUpError, ConnectionError, asyncio.IncompleteReadError):
                await session.run()
            session.writer.close()
            with contextlib.suppress(OSError):
                await session.writer.wait_closed()
        except BaseException:
            # Not after a clean end: Python 3.11.2 raises AttributeError for TLS transports that are closed already.
            session.writer.transport.abort()
            raise
        finally:
            session.open = False
            await self.tell()
