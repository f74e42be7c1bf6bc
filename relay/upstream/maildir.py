"""An upstream for trials: writes accepted mail to a Maildir, one file per recipient, as an MTA would deliver it."""

from __future__ import annotations

import socket
import time
import uuid
from typing import TYPE_CHECKING

from relay.core.errors import UpstreamDown
from relay.core.reply import Reply
from relay.runtime.executor import Executor
from relay.runtime.files import make_maildir, remove, try_maildir, write_new

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from relay.core.content import Content
    from relay.core.envelope import Envelope
    from relay.core.login import Credentials

_THREADS = 4
_RECIPIENT_OK = Reply.of(250, "2.1.5 Ok")


class MaildirUpstream:
    """Accepts every message. Implements `relay.core.delivery.Upstream`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._executor = Executor("maildir", _THREADS)

    connections_in_use = 0

    def begin(self, envelope: Envelope, client: str = "", identity: Credentials | None = None) -> MaildirDelivery:
        """Returns a delivery."""
        del client, identity
        return MaildirDelivery(self.path, envelope, self._executor)

    def size_limit(self) -> int | None:
        """Returns None: there is no limit."""
        return None

    def offers(self, keyword: str) -> bool:
        """Returns True for 8BITMIME and SMTPUTF8: a file can hold any octets and any address."""
        return keyword.upper() in {"8BITMIME", "SMTPUTF8"}

    def states(self) -> Mapping[str, bool]:
        """Returns nothing: there is one upstream, and no other to choose."""
        return {}

    async def probe(self) -> None:
        """Creates the Maildir. Raises `UpstreamDown`."""
        try:
            await self._executor.run(lambda: try_maildir(self.path))
        except OSError as error:
            raise UpstreamDown(f"the Maildir {self.path} cannot be written: {error.strerror or error}") from error

    async def close(self) -> None:
        """Ends the threads."""
        self._executor.close()


class MaildirDelivery:
    """One message. Implements `relay.core.delivery.Delivery`."""

    def __init__(self, path: Path, envelope: Envelope, executor: Executor) -> None:
        self._path = path
        self._executor = executor
        self._envelope = envelope
        self._recipients: list[bytes] = []
        self.dot_sent = False
        self.upstream = f"maildir:{path}"

    async def rcpt(self, path: bytes) -> Reply:
        """Accepts any recipient."""
        del path
        return _RECIPIENT_OK

    async def prepare(self, paths: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Sets the recipients, one file each."""
        self._recipients = list(paths)
        return dict.fromkeys(paths, _RECIPIENT_OK)

    async def send(self, received: bytes, content: Content) -> Reply:
        """Writes the files. All exist before 250 is returned."""
        self.dot_sent = False
        body = received + content.plain
        self.dot_sent = True
        try:
            names = await self._executor.run(lambda: self._write(body))
        except OSError as error:
            return Reply.of(452, f"4.3.1 The Maildir cannot be written: {error.strerror or error}")
        return Reply.of(250, f"2.0.0 Ok: queued as {names[0]}")

    async def finish(self) -> None:
        """Does nothing: no connection is open."""

    def _write(self, body: bytes) -> list[str]:
        make_maildir(self._path)
        # RFC 5321 section 4.4: the final delivery adds Return-Path. Delivered-To distinguishes the copies.
        head = b"Return-Path: <%b>\r\nDelivered-To: %b\r\n"
        names = [_new_name() for _ in self._recipients]
        try:
            for name, recipient in zip(names, self._recipients, strict=True):
                # Lines in files end with LF.
                copy = head % (self._envelope.reverse_path, recipient) + body
                write_new(self._path / "tmp" / name, copy.replace(b"\r\n", b"\n"))
            for name in names:
                (self._path / "tmp" / name).rename(self._path / "new" / name)
        except OSError:
            # All files or none: the client receives 452 for all recipients, and sends the message to all of them again.
            for name in names:
                remove(self._path / "tmp" / name)
                remove(self._path / "new" / name)
            raise
        return names


def _new_name() -> str:
    """Returns a unique file name (https://cr.yp.to/proto/maildir.html)."""
    host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
    return f"{int(time.time())}.R{uuid.uuid4().hex}.{host}"
