"""Hands a mail to the relay over SMTP."""

from __future__ import annotations

import contextlib
import smtplib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.runtime import unix_socket

if TYPE_CHECKING:
    from relay.sendmail.mail import Mail

_CONNECT_WITHIN = 10.0
_REPLY_WITHIN = 11 * 60.0
"""Seconds for each reply. The relay waits for the mail server's reply to the final dot for up to 9 minutes."""
_ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address to connect to where the relay listens on all addresses."""
_DEFAULT_PORT = 2525


class RelayAway(Exception):  # noqa: N818 - a state of the relay
    """No connection, a refused session, or a session that ended early. The argument says why."""


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where the relay listens: the path of a Unix socket, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> RelayAddress:
        """Reads `HOST:PORT` or `unix:PATH`, as in `listen.address`. Raises `ValueError`."""
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()):
            raise ValueError(f'"{text}" is no address; write HOST:{_DEFAULT_PORT} or unix:PATH')
        host = host.strip("[]")
        return cls(host=_ALL_ADDRESSES.get(host, host), port=int(port))

    def connect(self) -> socket.socket:
        """Connects. Raises `RelayAway`."""
        try:
            if not self.path:
                return socket.create_connection((self.host, self.port), _CONNECT_WITHIN)
            return unix_socket.connect(self.path, _CONNECT_WITHIN)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name
            reason = getattr(error, "strerror", "") or error
            raise RelayAway(
                f"no relay answers at {self}: {reason}; start it, or name its address by --relay"
            ) from error

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reply that refused one recipient, or the message for it."""

    recipient: str
    code: int
    text: str

    @property
    def is_permanent(self) -> bool:
        """Whether another attempt cannot help (5yz)."""
        return self.code // 100 == 5  # noqa: PLR2004 - RFC 5321 section 4.2.1


@dataclass(frozen=True, slots=True)
class Notification:
    """What DSN is asked for (RFC 3461): `-N`, `-R` and `-V`. Left out if the relay does not offer DSN."""

    notify: str = ""
    ret: str = ""
    envelope_id: str = ""


class _Client(smtplib.SMTP):
    """smtplib's client on a connection to the relay."""

    def __init__(self, address: RelayAddress, name: str) -> None:
        self._address = address
        super().__init__(str(address), 1, local_hostname=name)
        self.command_encoding = "utf-8"  # addresses beyond ASCII; smtplib's own constructor sets ASCII

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del host, port, timeout
        return self._address.connect()


def hand_over(mail: Mail, address: RelayAddress, name: str, notification: Notification) -> list[Refusal]:
    """Sends a mail. Returns the refusal of each recipient who was refused. `name` is that in EHLO.

    Raises `RelayAway` if the relay cannot be reached, or ends the session before its reply to the final dot.
    """
    try:
        with contextlib.closing(_Client(address, name)) as client:
            if client.sock is not None:
                client.sock.settimeout(_REPLY_WITHIN)
            client.ehlo_or_helo_if_needed()
            refusals = _transaction(client, mail, notification)
            with contextlib.suppress(
                OSError
            ):  # the mail has its reply: a drain that answers QUIT with 421 changes nothing
                client.quit()
            return refusals
    except (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
        raise RelayAway(f"the relay at {address} ended the session: {_reason(error)}") from error
    except OSError as error:
        raise RelayAway(f"the relay at {address} does not answer: {error.strerror or error}") from error


def _transaction(client: _Client, mail: Mail, notification: Notification) -> list[Refusal]:
    sender, recipient = _parameters(client, mail, notification)
    reply = client.docmd("MAIL", f"FROM:<{mail.reverse_path}>{sender}")
    if not _is_positive(reply):
        return [_refusal(each, reply) for each in mail.recipients]
    refusals, accepted = [], []
    for each in mail.recipients:
        reply = client.docmd("RCPT", f"TO:<{each}>{recipient}")
        if _is_positive(reply):
            accepted.append(each)
        else:
            refusals.append(_refusal(each, reply))
    if accepted:
        try:
            reply = client.data(mail.content)
        except smtplib.SMTPDataError as error:
            reply = error.smtp_code, _octets(error.smtp_error)
        if not _is_positive(reply):
            refusals += [_refusal(each, reply) for each in accepted]
    return refusals


def _parameters(client: _Client, mail: Mail, notification: Notification) -> tuple[str, str]:
    """Returns the parameters of MAIL and of RCPT, as far as the relay offers their extensions."""
    sender, recipient = [], []
    if client.has_extn("size"):
        sender.append(f"SIZE={len(mail.content)}")
    if client.has_extn("8bitmime") and not mail.content.isascii():
        sender.append("BODY=8BITMIME")
    if client.has_extn("smtputf8") and not "".join((mail.reverse_path, *mail.recipients)).isascii():
        sender.append("SMTPUTF8")
    if client.has_extn("dsn"):
        sender += [f"RET={notification.ret}"] * bool(notification.ret)
        sender += [f"ENVID={notification.envelope_id}"] * bool(notification.envelope_id)
        recipient += [f"NOTIFY={notification.notify}"] * bool(notification.notify)
    return "".join(f" {each}" for each in sender), "".join(f" {each}" for each in recipient)


def _is_positive(reply: tuple[int, bytes]) -> bool:
    return reply[0] // 100 == 2  # noqa: PLR2004 - RFC 5321 section 4.2.1


def _refusal(recipient: str, reply: tuple[int, bytes]) -> Refusal:
    code, text = reply
    if code == 421:  # noqa: PLR2004 - the relay closes the connection (RFC 5321 section 4.2.3)
        raise smtplib.SMTPServerDisconnected(f"{code} {text.decode('utf-8', 'replace')}")
    return Refusal(recipient, code, text.decode("utf-8", "replace"))


def _reason(error: smtplib.SMTPException) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_octets(error.smtp_error).decode('utf-8', 'replace')}"
    return str(error)


def _octets(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
