"""The relay's exceptions. Expected failures are values: a `Reply`, an `Outcome`, an `Unknown`. These are the others.

RelayError
├── SettingsError      wrong settings; the message names the source and the remedy             exit status 78
├── CannotListenError  an address to listen on is not available now, but may be later           exit status 1
├── StoreError         the store did not do what it was asked; caught in `claims.circuit_breaker`
│   └── StoreBusyError     it was not this store's turn in time: another attempt may succeed at once
├── AdminError         a command could not ask the running relay, or the relay refused              exit status 1
│   └── NoRelayError       no relay listens there
└── UpstreamError      no transaction with the upstream could begin; caught in `upstream.delivery`
    ├── UpstreamDown       unreachable, or its greeting was 4yz: another attempt may succeed
    │   ├── UpstreamFull       it refuses a further connection: full if others work, else down
    │   └── LoginDeferred      it cannot verify a name and password now
    ├── UpstreamRefused    it refuses the relay (TLS, AUTH, greeting 5yz): another attempt changes nothing
    │   └── LoginRefused       it refuses the name and password: further attempts can lock the account
    └── UpstreamBusy       all pooled connections stayed in use
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.core.reply import Reply


class RelayError(Exception):
    """The base class of the relay's exceptions."""


class SettingsError(RelayError):
    """The settings cannot be used. `str()` is a message for the operator, one line for each wrong setting."""


class CannotListenError(RelayError):
    """The relay cannot listen on the address of a setting. `reason` is the system's error message."""

    def __init__(self, key: str, address: str, reason: str) -> None:
        super().__init__(f'{key} = "{address}": cannot listen there: {reason}')
        self.key = key
        self.reason = reason


class StoreError(RelayError):
    """A store failed as a whole: it refused, did not answer, is full, or is not readable."""


class StoreBusyError(StoreError):
    """The store was busy for longer than a call may take. Nothing was changed, or it is not known."""


class AdminError(RelayError):
    """The running relay did not answer a command as asked. Each argument is a message for the user, with a remedy."""


class NoRelayError(AdminError):
    """No relay listens on the admin socket."""


class UpstreamError(RelayError):
    """There is no usable connection to the upstream."""


class UpstreamDown(UpstreamError):  # noqa: N818 - the name describes the upstream
    """The upstream does not answer, or asks to try again later."""


class UpstreamFull(UpstreamDown):
    """The upstream refused a further connection: with 421, or by closing it without a greeting."""


class LoginDeferred(UpstreamDown):
    """The upstream cannot verify the user and password now. It may serve other users, and clients without a login."""


class UpstreamRefused(UpstreamError):  # noqa: N818 - the name describes the upstream
    """The upstream answers and refuses the relay: TLS, AUTH or a 5yz greeting."""


class LoginRefused(UpstreamRefused):
    """The upstream refused the user and password. The message names no password."""

    reply: Reply | None = None
    """The upstream's own words."""


class UpstreamBusy(UpstreamError):  # noqa: N818 - the name describes the upstream
    """Every pooled connection was in use for longer than a transaction may wait for one."""
