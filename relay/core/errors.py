"""The exceptions of the relay. Expected failures are values: a `Reply`, an `Outcome`, an `Unknown`. These are the rest.

RelayError
├── SettingsError      the settings are wrong; the message names the source and the mend       exit 78
├── CannotListenError  an address to listen on cannot be had now; it may pass                    exit 1
├── StoreError         the store did not do what it was asked; meets `claims.guard`
└── UpstreamError      no transaction with the upstream could be had; meets `upstream.delivery`
    ├── UpstreamDown       it cannot be reached, or it answered the greeting with 4yz: worth another try
    ├── UpstreamRefused    it answered and will not have us (TLS, AUTH, greeting 5yz): trying again changes nothing
    └── UpstreamBusy       all our pooled connections stayed in use
"""

from __future__ import annotations


class RelayError(Exception):
    """The root of the tree."""


class SettingsError(RelayError):
    """Settings that cannot be used. `str()` is meant for the operator."""


class CannotListenError(RelayError):
    """The address of this setting cannot be listened on. `reason` is the system's word for it."""

    def __init__(self, key: str, address: str, reason: str) -> None:
        super().__init__(f'{key} = "{address}": cannot listen there: {reason}')
        self.key = key
        self.reason = reason


class StoreError(RelayError):
    """A store failed as a whole: refused, hanging, full, not ours to read."""


class UpstreamError(RelayError):
    """No usable connection to the upstream."""


class UpstreamDown(UpstreamError):  # noqa: N818 - it says what the upstream is
    """Nobody answers, or the one that does asks us to come back later."""


class UpstreamRefused(UpstreamError):  # noqa: N818 - it says what the upstream is
    """The upstream answers and does not want us: TLS, AUTH or a 5yz greeting."""


class UpstreamBusy(UpstreamError):  # noqa: N818 - it says what the upstream is
    """Every pooled connection was in use for longer than a transaction may wait for one."""
