"""Access tokens for XOAUTH2: from a file that another program renews, or from the output of a command."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamDown
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import IO

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
    executor = Executor("token", 1)

    async def read() -> str:
        return _first_line(await executor.run(lambda: _output(command, limit)), "upstream.token_command")

    return AccessToken(read, clock)


def _output(command: Sequence[str], limit: float) -> bytes:
    """Runs a command and returns the beginning of its output. Raises `UpstreamDown`.

    Neither the program nor a child that keeps its pipe open can hold this thread for longer than `limit` seconds.
    """
    name, deadline = f"upstream.token_command {command[0]}", time.monotonic() + limit
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may contain secrets
            start_new_session=True,
        )
    except OSError as error:
        raise UpstreamDown(f"{name}: {error.strerror}") from error
    try:
        output = _read_until(process.stdout, deadline) if process.stdout else b""
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise UpstreamDown(f"{name}: no token within {limit:g} s") from None
    finally:
        if process.stdout:
            process.stdout.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise UpstreamDown(f"{name}: ended with status {status}; run it as the relay's user")
    return output


def _read_until(pipe: IO[bytes], deadline: float) -> bytes:
    """Returns what comes through a pipe, up to the longest token. Raises `TimeoutError`."""
    output = bytearray()
    poll = select.poll()  # unlike `select.select`, for any number of descriptors
    poll.register(pipe, select.POLLIN)
    while len(output) < _LONGEST_TOKEN:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        more = os.read(pipe.fileno(), _LONGEST_TOKEN)
        if not more:
            break
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
