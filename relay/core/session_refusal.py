"""Why a session is refused, or ended by a limit."""

from __future__ import annotations

from enum import Enum

from relay.core.reply import (
    CONTENT_TOO_SLOW,
    DRAINING,
    IDLE,
    INPUT_BEFORE_TLS,
    NETWORK_NOT_ALLOWED,
    NO_PROXY_HEADER,
    SESSION_TOO_LONG,
    TLS_NOT_SPOKEN,
    TOO_MANY_COMMANDS,
    TOO_MANY_ERRORS,
    TOO_MANY_SESSIONS,
    TOO_MANY_SESSIONS_OF_CLIENT,
    Reply,
)


class SessionRefusal(Enum):
    """A reason: its label in the metrics, the setting that decides, and the reply."""

    NETWORK = ("network", "listen.networks", NETWORK_NOT_ALLOWED)
    SESSIONS = ("sessions", "limits.sessions", TOO_MANY_SESSIONS)
    CLIENT_SHARE = ("client_share", "limits.sessions", TOO_MANY_SESSIONS_OF_CLIENT)
    CLIENT_SESSIONS = ("client_sessions", "limits.client_sessions", TOO_MANY_SESSIONS_OF_CLIENT)
    DESCRIPTORS = (
        "descriptors",
        "limits.sessions, for which there are too few file descriptors",
        TOO_MANY_SESSIONS,
    )
    TLS = ("tls", "listen.address", TLS_NOT_SPOKEN)
    HANDSHAKE = ("handshake", "tls.certificate", TLS_NOT_SPOKEN)
    """The TLS handshake failed or took too long. The client cannot read a reply."""
    PLAIN_TEXT = ("plain_text", "listen.tls_address", TLS_NOT_SPOKEN)
    """The client did not begin with TLS where TLS is expected."""
    INJECTION = ("injection", "tls.certificate", INPUT_BEFORE_TLS)
    """Input followed STARTTLS before the handshake: a third party may have added it."""
    PROXY = ("proxy", "listen.proxy_networks", NO_PROXY_HEADER)
    """A balancer sent no PROXY header, or a wrong one."""
    DRAINING = ("draining", "limits.drain", DRAINING)
    ERRORS = ("errors", "no setting", TOO_MANY_ERRORS)
    COMMANDS = ("commands", "limits.commands", TOO_MANY_COMMANDS)
    IDLE = ("idle", "limits.session_idle", IDLE)
    SESSION_TIME = ("session_time", "limits.session_time", SESSION_TOO_LONG)
    DATA_RATE = ("data_rate", "limits.min_data_rate", CONTENT_TOO_SLOW)

    def __init__(self, reason: str, key: str, reply: Reply) -> None:
        self.reason = reason
        self.key = key
        self.reply = reply
