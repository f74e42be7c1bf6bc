"""Access tokens for XOAUTH2: from a file that another program renews, or from the output of a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamDown
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

LONGEST_USE = 300.0
"""Seconds after which a token is read again. Providers issue tokens for an hour; a renewed one lies in the file."""
COMMAND_LIMIT = 30.0
"""Seconds that the command may take."""
_FILE_LIMIT = 10.0
_LONGEST_TOKEN = 16 * 1024
"""Bytes. Microsoft's tokens have about 2,000."""

_TOKEN = re.compile(rb"[!-~]+")


class AccessToken:
    """The current token. `read` returns a new one; `clock` gives monotonic seconds."""

    def __init__(self, read: Callable[[], Awaitable[str]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._token = ""
        self._read_again_at = 0.0
        self._reading = asyncio.Lock()

    async def get(self, *, instead_of: str = "") -> str:
        """Returns the token, or if that is `instead_of`, which the upstream refused, what is there now.

        Connections that are opened at the same time share one read. Raises `UpstreamDown` if there is no token.
        """
        async with self._reading:
            if not self._token or self._token == instead_of or self._clock() >= self._read_again_at:
                self._token = ""
                self._token = await self._read()
                self._read_again_at = self._clock() + LONGEST_USE
            return self._token


def token_from_file(path: Path, clock: Callable[[], float]) -> AccessToken:
    """Returns the token in the first line of a file."""
    executor = Executor("token", 1, _FILE_LIMIT)

    async def read() -> str:
        try:
            octets = await executor.run(lambda: _first_octets(path))
        except TimeoutError:
            raise UpstreamDown(f"upstream.token_file {path}: not read within {_FILE_LIMIT:g} s") from None
        except OSError as error:
            raise UpstreamDown(f"upstream.token_file {path}: {error.strerror}; let the relay's user read it") from error
        return _first_line(octets, f"upstream.token_file {path}")

    return AccessToken(read, clock)


def token_from_command(command: Sequence[str], clock: Callable[[], float], limit: float = COMMAND_LIMIT) -> AccessToken:
    """Returns the token in the first line that a command prints. `limit` in seconds."""

    async def read() -> str:
        return _first_line(await _output(command, limit), "upstream.token_command")

    return AccessToken(read, clock)


async def _output(command: Sequence[str], limit: float) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # it may contain secrets
            start_new_session=True,
        )
    except OSError as error:
        raise UpstreamDown(f"upstream.token_command {command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(limit):
            output = await _read_all(process.stdout) if process.stdout else b""
            status = await process.wait()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too, which may hold the pipe
        await process.wait()
        if isinstance(error, TimeoutError):
            raise UpstreamDown(f"upstream.token_command {command[0]}: no token within {limit:g} s") from None
        raise
    if status:
        raise UpstreamDown(
            f"upstream.token_command {command[0]}: ended with status {status}; run it as the relay's user"
        )
    return output


async def _read_all(stream: asyncio.StreamReader) -> bytes:
    """Returns what a command prints, up to the longest token."""
    output = bytearray()
    while len(output) < _LONGEST_TOKEN and (more := await stream.read(_LONGEST_TOKEN)):
        output += more
    return bytes(output)


def _first_octets(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LONGEST_TOKEN)


def _first_line(octets: bytes, source: str) -> str:
    """Returns the token in the first line. Raises `UpstreamDown` if it cannot be one (RFC 6750 section 2.1)."""
    token = octets.partition(b"\n")[0].strip()
    if len(token) >= _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
        raise UpstreamDown(f"{source}: its first line is not an access token")
    return token.decode("ascii")
