"""The sections about clients: where they connect, who they are, and what they may use."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Annotated, Literal, Self

from pydantic import model_validator

from relay.settings import value_types
from relay.settings.sections.base import Section, setting
from relay.settings.value_types import (
    AddressOrNone,
    Bytes,
    Count,
    FileMode,
    GroupName,
    Limit,
    ListenAddress,
    Networks,
    PathOrNone,
    Seconds,
    Switch,
    Timeout,
)


class ListenSection(Section):
    """Where clients connect."""

    address: ListenAddress = setting(
        "127.0.0.1:2525",
        'Address for SMTP clients. "0.0.0.0:2525" or "[::]:2525" means all addresses; with port 0 the system chooses. '
        '"unix:/run/smtp-dedup-relay/smtp.sock" is a Unix socket.',
    )
    socket_mode: FileMode = setting(
        "660",
        "Permissions of the Unix socket in listen.address, in octal. Programs that may write to it may send without a "
        "login.",
    )
    socket_group: GroupName = setting("", 'Group of the Unix socket, by name or number. "" = that of the relay.')
    tls_address: AddressOrNone = setting(
        "",
        "Address for SMTP clients that begin with TLS (implicit TLS, usually port 465). Needs tls.certificate. "
        '"" = none.',
    )
    reuse_port: Switch = setting(
        False,
        "Whether several relays may listen on one address; the system divides the clients among them (SO_REUSEPORT). "
        "For several processes without systemd; with it, socket activation refuses no client at a restart.",
    )
    networks: Networks = setting(
        ["127.0.0.0/8", "::1/128"],
        "Networks whose clients may send without a login, in CIDR form, and log in without TLS. Other clients receive "
        "554, or with auth.mode file or passthrough may send once they have logged in over TLS.",
    )
    proxy_networks: Networks = setting(
        [],
        "Networks of load balancers, in CIDR form. A connection from them must begin with a PROXY protocol header, "
        "version 1 or 2, and counts as one of the client that the header names. From other networks no header is read.",
    )
    bare_line_ends: Literal["pass", "reject"] = setting(
        "pass",
        "What becomes of content with a CR or LF that is not part of CRLF: pass it on unchanged, except that a dot "
        "alone between such line ends is doubled, or reject it with 550 after the final dot.",
    )


class TlsSection(Section):
    """The certificate that clients see. With one, the relay offers STARTTLS, and TLS 1.2 or newer."""

    certificate: PathOrNone = setting(
        "",
        "PEM file with the certificate and those of its issuers. Read again on reload. "
        '"" = none; then clients that require TLS cannot send.',
    )
    key: PathOrNone = setting("", 'PEM file with the private key, without a password. "" = in tls.certificate.')
    self_signed: Switch = setting(
        False,
        "Whether the relay makes a certificate of its own, self-signed.pem in the state folder, and renews it. Clients "
        "that verify certificates refuse it; AVideo does not verify. Not together with tls.certificate.",
    )

    @model_validator(mode="after")
    def _has_one_certificate(self) -> Self:
        if self.self_signed and (self.certificate or self.key):
            name = "tls.certificate" if self.certificate else "tls.key"
            raise ValueError(f"tls.self_signed is true, and {name} is set too; remove one of them")
        return self

    @property
    def is_offered(self) -> bool:
        """Whether there is a certificate, so that the relay offers TLS."""
        return self.self_signed or self.certificate is not None


class AuthSection(Section):
    """Logins of clients (AUTH). docs/auth.md explains them."""

    mode: Literal["off", "file", "passthrough", "any"] = setting(
        "off",
        '"off" offers no AUTH; "file" verifies logins against auth.users_file; "passthrough" logs in at the upstream '
        'with the name and password of the client, and the upstream decides; "any" accepts every login, for '
        "applications in listen.networks that cannot send without one.",
    )
    users_file: PathOrNone = setting(
        "",
        'File of names and hashed passwords, which `relay user` writes. Read again when it changes. "" = none.',
    )

    @model_validator(mode="after")
    def _has_users(self) -> Self:
        if self.mode == "file" and not self.users_file:
            raise ValueError(
                'auth.mode is "file", but auth.users_file is missing; name a file, and add users with relay user add'
            )
        return self


class LimitsSection(Section):
    """Limits of what the relay accepts."""

    message_size: Bytes = setting(
        "50MiB",
        "Largest message. The smaller of this and the upstream's own limit is offered to clients. 0 = the upstream's "
        "limit only.",
    )
    memory: Annotated[Bytes, value_types.size_at_least(1024 * 1024)] = setting(
        "256MiB",
        "Memory for the content of all messages in the relay together, from DATA to the reply. While it is used up, "
        "DATA waits for 5 s and then receives 452. A larger message than this is refused, and not offered in SIZE. "
        "The process takes up to three times as much. Default: 256MiB, or a quarter of the memory of the machine or "
        "of the control group if that is less.",
    )
    recipients: Count = setting(1000, "Largest number of recipients of one message; further ones receive 452.")
    sessions: Count = setting(
        2000,
        "Largest number of client connections; further ones receive 421. One client gets at most 95 % of them, so that "
        "others find a place. Each needs a file descriptor: the relay raises the soft limit of descriptors to the hard "
        "one (LimitNOFILE= in systemd), and admits fewer clients if that is too low.",
    )
    client_sessions: Limit = setting(
        50,
        "Largest number of connections of one client outside listen.networks (an IPv4 address or an IPv6 network of 64 "
        "bits); further ones receive 421. 0 = no such limit.",
    )
    client_upstream_connections: Limit = setting(
        5,
        "Connections to the upstream that transactions of one client may keep while it is silent between RCPT and the "
        "final dot. Of more, the longest silent ones go to others after 0.2 s; each gets another one when its client "
        "goes on. Less than upstream.connections. 0 = any number, while nobody waits for one.",
    )
    message_rate: Limit = setting(
        600,
        "Messages per minute of one client outside listen.networks, and of one user there; further ones receive 450 at "
        "MAIL. 0 = any number.",
    )
    recipient_rate: Limit = setting(
        10000,
        "Recipients per minute of one client outside listen.networks, and of one user there; further ones receive 450 "
        "at RCPT. 0 = any number.",
    )
    session_idle: Timeout = setting(
        "300s",
        "How long a client may be silent. Restarts when bytes arrive; stopped from the final dot to its reply.",
    )
    session_time: Timeout = setting(
        "2h",
        "How long a session may last. It then ends with 421, between two transactions. A transaction may take as long "
        "from MAIL to its final dot; what follows the dot is not limited by it.",
    )
    min_data_rate: Bytes = setting(
        "1KiB",
        "Bytes per second that a client must send of a message's content, averaged over limits.session_idle. A slower "
        "one receives 421. 0 = none.",
    )
    commands: Limit = setting(
        300,
        "Largest number of commands in a session since its last accepted message, RCPT not counted; then it ends with "
        "421. 0 = no limit.",
    )
    drain: Seconds = setting(
        "25s",
        "How long running transactions, and the last writes after them, may take after SIGTERM. The process ends one "
        "second later at the latest. Keep it below the service manager's limit: TimeoutStopSec in systemd (35 s in the "
        "unit of this package).",
    )
