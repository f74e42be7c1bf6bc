"""The client of the admin API, for the commands."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from relay import __version__
from relay.admin.protocol import API, API_FIELD, LARGEST_ANSWER, VERSION_FIELD
from relay.core.errors import AdminError, NoRelayError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

_AWAY = {errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED}
_DENIED = {errno.EACCES, errno.EPERM}
_MARGIN = 5.0
"""Seconds that the client waits longer than the server may take."""
_FIRST_ANSWER = 10.0
"""Seconds for the first answer."""
_LONGEST_REASON = 500
"""Characters of an error that are shown."""


@contextlib.asynccontextmanager
async def running_relay(path: Path, first_answer: float = _FIRST_ANSWER) -> AsyncIterator[RunningRelay]:
    """Connects to the relay that listens on this socket. Raises `NoRelayError` if none does, else `AdminError`.

    A relay that does not answer within `first_answer` seconds hangs, and is asked nothing else.
    """
    connector = aiohttp.UnixConnector(path=str(path))
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        relay = RunningRelay(session, path)
        await relay.introduce(first_answer)
        yield relay


class RunningRelay:
    """A relay that has answered. Methods raise `AdminError`; `limit` is in seconds, as in the server."""

    def __init__(self, session: aiohttp.ClientSession, path: Path) -> None:
        self._session = session
        self.path = path
        self.process: dict[str, Any] = {}
        """Its `version`, `pid` and `user`."""

    @property
    def other_version(self) -> str:
        """The relay's version if it differs from that of this command, else empty."""
        version = str(self.process.get("version", ""))
        return "" if version == __version__ else version

    @property
    def description(self) -> str:
        """Which relay answers, for people."""
        version, pid, user = (printable(str(self.process.get(name))) for name in ("version", "pid", "user"))
        return f"version {version}, pid {pid}, user {user}"

    async def introduce(self, limit: float) -> None:
        """Asks which relay this is."""
        self.process = await self._object("GET", "/", limit, {})

    async def json(self, method: str, path: str, limit: float, **request: Any) -> dict[str, Any]:
        """Returns the object that the relay answers."""
        return await self._object(method, path, limit + _MARGIN, request)

    async def _object(self, method: str, path: str, limit: float, request: dict[str, Any]) -> dict[str, Any]:
        body = bytearray()
        async with self._answer(method, path, limit, request) as answer:
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise AdminError(f"{self._name} answers with more than {LARGEST_ANSWER} bytes; restart it")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._not_a_relay()
        return found

    async def read(
        self, method: str, path: str, limit: float, decode: Callable[[Mapping[str, Any]], T], **request: Any
    ) -> T:
        """Returns what `decode` makes of the object that the relay answers."""
        found = await self.json(method, path, limit, **request)
        try:
            return decode(found)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._not_a_relay() from None

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, limit: float, request: dict[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=limit)
        with self._reported(limit):
            async with self._session.request(
                method, f"http://relay{path}", timeout=timeout, allow_redirects=False, **request
            ) as answer:
                await self._check(answer)
                yield answer

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        """Raises `AdminError` unless a relay with the same API answers, and does what was asked."""
        api = answer.headers.get(API_FIELD)
        if api is None and answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise AdminError(f"{self._name} answers too many commands at this moment; try again")
        if api is None:
            raise self._not_a_relay()
        if api != API or answer.status == HTTPStatus.NOT_FOUND:
            version = answer.headers.get(VERSION_FIELD, "unknown")[:_LONGEST_REASON]
            raise AdminError(
                f"{self._name} has version {version}, this command {__version__}, and the two do not understand each "
                "other; restart the relay if it was upgraded, or use the command of its version"
            )
        if answer.status != HTTPStatus.OK:
            text = (await answer.content.read(_LONGEST_REASON * 4)).decode("utf-8", "replace")
            raise AdminError(*text.splitlines() or [f"{self._name} says {answer.status}"])

    @contextlib.contextmanager
    def _reported(self, limit: float) -> Iterator[None]:
        """Turns what went wrong on the socket into `AdminError`."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            if error.errno in _AWAY:
                raise NoRelayError(f"no relay listens on admin.socket {self.path}") from error
            if error.errno in _DENIED:
                raise AdminError(self._denied()) from error
            raise AdminError(f"admin.socket {self.path}: {error.strerror}") from error
        except TimeoutError:
            raise AdminError(
                f"{self._name} does not answer within {limit:g} s; its log says what it does, and systemctl restart "
                "smtp-dedup-relay ends it"
            ) from None
        except aiohttp.ClientPayloadError as error:
            raise AdminError(f"{self._name} broke off its answer; try again") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._not_a_relay(str(error)) from error

    @property
    def _name(self) -> str:
        return f"the relay at admin.socket {self.path}"

    def _not_a_relay(self, reason: str = "") -> AdminError:
        why = f" ({reason.splitlines()[0][:_LONGEST_REASON]})" if reason else ""
        return AdminError(f"what listens on admin.socket {self.path} does not answer as a relay does{why}; correct it")

    def _denied(self) -> str:
        try:
            group = grp.getgrgid(self.path.stat().st_gid).gr_name
        except (OSError, KeyError):
            group = "smtp-dedup-relay"
        return (
            f"admin.socket {self.path}: permission denied; use sudo, or join the group {group} "
            f"(usermod -aG {group} USER, then log in again)"
        )
