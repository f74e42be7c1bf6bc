"""The open sessions of a listener: who is admitted, and the drain."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.core import reply as replies
from relay.core.client import LOCAL, address_of, client_of
from relay.core.session_refusal import SessionRefusal
from relay.logins.limits import LoginLimits
from relay.runtime.tasks import Tasks
from relay.smtp.rate_limits import RateLimit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from relay.dependencies import Dependencies
    from relay.smtp.session import Session

_SHARE = 19
"""One client may hold up to this many sessions for each free one: 95 % of all if it is alone (ADR 16)."""
_FEW = 2
"""Sessions that one client may hold all. Of more, at least one is left for others."""


@dataclass(frozen=True)
class SessionLimits:
    """What a client may do."""

    networks: Sequence[IPv4Network | IPv6Network]
    """The networks of the clients that may send without a login."""
    message_size: int
    """Bytes; 0 means no limit of the relay's own."""
    sessions: int
    session_idle: float
    """Seconds."""
    descriptors: int = sys.maxsize
    """The sessions for which the process has file descriptors."""
    handshake: float = 30.0
    """Seconds that a TLS handshake may take."""
    closing: float = 10.0
    """Seconds, at most `session_idle`, in which a client must read its last replies after the relay closes."""
    refusals: int = 100
    """Refused recipients of one transaction after which each further refusal is delayed."""
    refusal_delay: float = 0.1
    """Seconds."""
    memory_wait: float = 5.0
    """Seconds that DATA waits for memory before it is refused."""
    proxy_networks: Sequence[IPv4Network | IPv6Network] = ()
    """The networks of the balancers, which begin with a PROXY header."""
    logins: bool = False
    """Whether clients of other networks are admitted, to log in."""
    client_sessions: int = 0
    """The sessions of one client of another network; 0 means no such limit."""
    message_rate: int = 0
    recipient_rate: int = 0
    """Per minute, for one client of another network, and for one user; 0 means any number."""
    session_time: float = math.inf
    """Seconds for a session, and again for the transaction in which it ends, up to the final dot."""
    min_data_rate: int = 0
    """Bytes per second of content, averaged over `session_idle`; 0 means any rate."""
    bare_line_ends: bool = True
    """Whether content with a bare CR or LF is accepted."""
    commands: int = 0
    """The commands since the last accepted message, RCPT not counted; 0 means any number."""


class SessionTable:
    """The open sessions of a listener, and the tasks that serve them."""

    def __init__(self, limits: SessionLimits, dependencies: Dependencies, tls: ssl.SSLContext | None = None) -> None:
        self.limits = limits
        self.dependencies = dependencies
        """What new transactions use. Running ones end with what they began with."""
        self.tls = tls
        """The context of TLS handshakes; None if the relay has no certificate."""
        self.draining = False
        self._grace: asyncio.TimerHandle | None = None
        """Set while sessions go on as usual although a drain has started."""
        self.drained = asyncio.Event()
        """Set when a drain has started and no session is in a transaction."""
        self.handlers = Tasks()
        """The command loops."""
        self.messages = Tasks()
        """The transactions after their final dots. They end without their sessions."""
        self.logins = LoginLimits(time.monotonic)
        self.messages_per_minute = RateLimit(limits.message_rate, time.monotonic)
        self.recipients_per_minute = RateLimit(limits.recipient_rate, time.monotonic)
        self.headers_awaited = 0
        """The connections of balancers whose client is not known yet. Each takes a place."""
        self._sessions: set[Session] = set()
        self._clients: Counter[str] = Counter()
        """The number of sessions of each client."""

    def exchange(self, limits: SessionLimits, dependencies: Dependencies, tls: ssl.SSLContext | None) -> None:
        """Uses other settings from now on: each session with its next command outside of a transaction."""
        self.limits, self.dependencies, self.tls = limits, dependencies, tls
        self.messages_per_minute.per_minute = limits.message_rate
        self.recipients_per_minute.per_minute = limits.recipient_rate

    def __len__(self) -> int:
        """Returns the number of open sessions."""
        return len(self._sessions)

    def refusal(self, peer: str) -> SessionRefusal | None:
        """Returns why a new session of a client is refused, or None. `peer` is its IP address, empty if unknown."""
        # The client left before the system could return its address: no network is known to be allowed.
        is_trusted = bool(peer) and _is_in(peer, self.limits.networks)
        if not peer or not (self.limits.logins or is_trusted):
            return SessionRefusal.NETWORK
        most = 0 if is_trusted or not self.may_begin else self.limits.client_sessions
        if 0 < most <= self._clients[client_of(peer)]:
            return SessionRefusal.CLIENT_SESSIONS
        return self.refusal_for_want_of_places(peer)

    def refusal_for_want_of_places(self, peer: str = "") -> SessionRefusal | None:
        """Returns why a client of any network is refused, or None. `peer` is empty while the client is not known."""
        if not self.may_begin:
            return SessionRefusal.DRAINING
        places = min(self.limits.sessions, self.limits.descriptors)
        free, held = places - len(self._sessions) - self.headers_awaited, self._clients[client_of(peer)]
        takes_the_last = held == places - 1 and places > _FEW
        if not (takes_the_last or held >= _SHARE * free):
            return None
        if self.limits.descriptors < self.limits.sessions:
            return SessionRefusal.DESCRIPTORS
        return SessionRefusal.CLIENT_SHARE if free > 0 else SessionRefusal.SESSIONS

    def trusts(self, peer: str) -> bool:
        """Returns whether a client may send without a login."""
        limits = self.limits
        # Without logins and balancers, no other clients are admitted.
        return not (limits.logins or limits.proxy_networks) or (bool(peer) and _is_in(peer, limits.networks))

    def expects_proxy_header(self, peer: str) -> bool:
        """Returns whether a client is a balancer, which must begin with a PROXY header."""
        networks = self.limits.proxy_networks
        return bool(networks and peer) and peer != LOCAL and _is_in(peer, networks)

    def add(self, session: Session) -> None:
        """Adds a session that `refusal` admits."""
        self._sessions.add(session)
        self._clients[client_of(session.peer)] += 1

    def remove(self, session: Session) -> None:
        """Removes a session whose connection has ended. May be called repeatedly."""
        if session in self._sessions:
            self._sessions.remove(session)
            client = client_of(session.peer)
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        self.transaction_ended()

    def transaction_ended(self) -> None:
        """Notes the end of a transaction, which may end the drain."""
        if self.may_begin and (self._sessions or self.headers_awaited):
            return
        if self.draining and not any(session.in_transaction for session in self._sessions):
            self.drained.set()

    @property
    def may_begin(self) -> bool:
        """Whether sessions may begin a transaction."""
        return not self.draining or self._grace is not None

    def start_drain(self, grace: float = 0.0) -> None:
        """Closes the sessions that are not in a transaction. The others are refused a further one.

        For `grace` seconds all sessions go on as usual before that.
        """
        self.draining = True
        if grace:
            self._grace = asyncio.get_running_loop().call_later(grace, self._end_grace)
            self.transaction_ended()
        else:
            self._close_idle()

    def _end_grace(self) -> None:
        self._grace = None
        self._close_idle()

    def _close_idle(self) -> None:
        for session in list(self._sessions):
            if not session.in_transaction:
                session.close_with(replies.DRAINING)
        self.transaction_ended()

    def close_all(self) -> None:
        """Closes all sessions."""
        if self._grace is not None:
            self._grace.cancel()
        for session in list(self._sessions):
            session.close_with(replies.DRAINING)


def _is_in(peer: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if peer == LOCAL:  # the permissions of the socket let it send
        return True
    address = address_of(peer)
    return any(address in network for network in networks)
