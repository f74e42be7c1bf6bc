"""Every setting of the relay: its name, kind, default, and what it means to the operator.

This is the one place. The file, the environment, the flags, `config/relay.toml` and `docs/settings.md` follow from it.
A key that is not here is refused, so that nobody believes it acts.
"""

# Without `from __future__ import annotations`: pydantic reads the kinds when the class is made.
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator
from pydantic.fields import FieldInfo

from relay.settings import value_types as kinds
from relay.settings.presets import parse_presets
from relay.settings.tables import Ignores, IgnoreTable, Rules, RuleTable
from relay.settings.urls import SmtpUrl
from relay.settings.value_types import (
    Address,
    AddressOrNone,
    Bytes,
    Count,
    KeepOrNone,
    Networks,
    PathOrNone,
    Seconds,
    Switch,
    Timeout,
)

Presets: TypeAlias = Annotated[
    tuple[str, ...],
    kinds.ValueType("list of presets"),
    PlainValidator(parse_presets),
    PlainSerializer(list, return_type=list[str]),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _key(default: object, description: str) -> Any:
    """Declare a key with its default as an operator would write it."""
    return Field(default=default, description=description, validate_default=True)


class ListenSection(_Section):
    """Where clients reach the relay."""

    address: Address = _key(
        "127.0.0.1:2525",
        'Where SMTP clients connect. "0.0.0.0:2525" or "[::]:2525" takes all addresses; port 0 lets the system choose.',
    )
    networks: Networks = _key(
        ["127.0.0.0/8", "::1/128"],
        "Who may send: networks in CIDR form. Clients from anywhere else hear 554.",
    )


class UpstreamSection(_Section):
    """The mail server that the relay forwards to."""

    url: kinds.Upstream = _key(
        "smtp://127.0.0.1:25",
        "smtp://HOST[:25] (STARTTLS not used), smtp+starttls://HOST[:587] (STARTTLS required), smtps://HOST[:465], "
        "each with USER@ before the host to log in; or maildir:PATH, which writes accepted mail to a Maildir, for "
        "trying out.",
    )
    fallback_urls: kinds.Upstreams = _key(
        [],
        "Mail servers to use while the one in upstream.url cannot be reached, the preferred one first; written as "
        "there. The next one is tried only as long as no final dot was sent, and the preferred one is used again once "
        "it answers. A user in them logs in with the same password.",
    )
    password: kinds.Secret = _key(
        None,
        "The password for the user in upstream.url. From the environment only; beats upstream.password_file.",
    )
    password_file: PathOrNone = _key(
        "",
        "File whose first line is the password for the user in upstream.url; the user whom the relay runs as must be "
        "able to read it. Below systemd rather write RELAY_UPSTREAM__PASSWORD=... into "
        '/etc/smtp-dedup-relay/environment, which systemd reads as root (mode 600). "" = none.',
    )
    ca_file: PathOrNone = _key(
        "",
        'File of the certificate authorities (PEM) that may vouch for the upstream. "" = those of the system.',
    )
    verify_certificate: Switch = _key(
        True,
        "Whether the upstream's certificate must be valid and name the host in upstream.url.",
    )
    connections: Count = _key(
        20,
        "Most connections to the upstream at one time, per process. Postfix takes 100 from all clients together.",
    )
    connect_timeout: Timeout = _key("10s", "Longest wait for a connection, TLS and login included.")
    reply_timeout: Timeout = _key("120s", "Longest wait for the reply to a command.")
    dot_timeout: Timeout = _key(
        "9m",
        "Longest wait for the reply after the final dot. RFC 5321 asks for 10 minutes; when it ends, nobody knows "
        "whether the upstream took the message (dedup.on_uncertain).",
    )
    patience: Seconds = _key(
        "20s",
        "How long an unreachable or busy upstream is tried again before the client hears 451; once per transaction, "
        "only before the final dot. 0 = one try. A kept connection that died meanwhile is replaced once in any case.",
    )
    received_field: Switch = _key(
        True,
        "Whether a Received field is added on top of each message. Without it mail loops are not recognised.",
    )

    @model_validator(mode="after")
    def _fallbacks_are_others(self) -> Self:
        if self.fallback_urls and not isinstance(self.url, SmtpUrl):
            raise ValueError("upstream.fallback_urls stand in for a mail server; upstream.url is a Maildir")
        addresses = [url.address for url in self.smtp_urls]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"{address} stands twice in upstream.url and upstream.fallback_urls; write it once")
        return self

    @property
    def smtp_urls(self) -> tuple[SmtpUrl, ...]:
        """All mail servers in order of preference; none where the upstream is a Maildir."""
        return (self.url, *self.fallback_urls) if isinstance(self.url, SmtpUrl) else ()

    def key_of(self, url: SmtpUrl) -> str:
        """Name the setting in which one of `smtp_urls` stands."""
        return "upstream.url" if url == self.url else "upstream.fallback_urls"

    @model_validator(mode="after")
    def _user_has_password(self) -> Self:
        if any(url.user for url in self.smtp_urls) and not (self.password or self.password_file):
            raise ValueError(
                "upstream.url names a user, but there is no password; write it to a file and name that in "
                "upstream.password_file, or set RELAY_UPSTREAM__PASSWORD"
            )
        return self


class DedupSection(_Section):
    """What counts as a repeat, and what is done about it."""

    window: Seconds = _key(
        "10m",
        "How long after its acceptance a message suppresses repeats of itself. 0 = off. Mail servers retry after 5 to "
        "30 minutes: write 1h where they are the senders.",
    )
    mode: Literal["enforce", "observe"] = _key(
        "enforce",
        '"enforce" suppresses repeats; "observe" forwards everything and counts what it would have suppressed.',
    )
    lease: Annotated[Seconds, kinds.at_least(1)] = _key(
        "30s",
        "How long a message under delivery stays claimed when its process has died. Renewed every third of it.",
    )
    wait: Seconds = _key(
        "240s",
        "Longest wait of a simultaneous repeat for the outcome of the first copy, from its own final dot; then 451. "
        "Stay under the client's own limit: 300 s in PHPMailer, 100 s in Postfix's before-queue proxy.",
    )
    presets: Presets = _key(
        ["avideo"],
        "Rules and ignores for known applications, which come after those of this file; docs/rules.md says what each "
        "does. [] = none.",
    )
    on_uncertain: Literal["release", "keep"] = _key(
        "release",
        'When the upstream vanishes after the final dot without a reply: "release" lets a retry through (perhaps a '
        'duplicate), "keep" counts it as sent (perhaps a loss; for senders that retry by themselves).',
    )


class StoreSection(_Section):
    """Where the relay remembers what was sent."""

    url: kinds.Store = _key(
        "sqlite:/var/lib/smtp-dedup-relay/relay.db",
        "sqlite:PATH; redis://[:PASSWORD@]HOST[:6379], rediss://HOST (TLS), unix:///SOCKET (Redis or Valkey 6.2 or "
        "newer); redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST,HOST/SERVICE[?db=N] (login of the master; option "
        "sentinel_password for the sentinels' own); redis+cluster://[:PASSWORD@]HOST[:6379],HOST; or memory:, "
        "which forgets at restart. Default: relay.db in $STATE_DIRECTORY, which systemd sets; else for root in "
        "/var/lib/smtp-dedup-relay, for others in smtp-dedup-relay below $XDG_STATE_HOME or ~/.local/state.",
    )
    timeout: Timeout = _key(
        "1s",
        "Longest wait for the store. After it mail is forwarded without asking: a duplicate is better than a loss.",
    )


class HttpSection(_Section):
    """Metrics and health."""

    address: AddressOrNone = _key("127.0.0.1:9625", 'Where /metrics, /livez and /readyz are served. "" = nowhere.')


class RecordSection(_Section):
    """What is kept about suppressed messages."""

    keep_for: Seconds = _key(
        "30d",
        "How long the record of a suppression stays; `relay suppressed` and `relay why` read it. It holds no body. "
        "0 = none is written.",
    )
    keep: KeepOrNone = _key(
        "",
        "maildir:PATH keeps the suppressed messages themselves as long as their records, and `relay release` forwards "
        'one after all. The folder holds whole mails: let only the relay read it. "" = they are not kept.',
    )
    secret_file: PathOrNone = _key(
        "",
        "File whose first line, of 32 characters or more, is the secret that mail addresses in records are hashed "
        "with; made when it is missing. Write the same into it on all hosts of one store. "
        '"" = record.key beside the file of a sqlite: store, else in the state folder.',
    )
    addresses: Switch = _key(
        False,
        "Whether records name mail addresses. Without it they hold a hash, by which `relay why ADDRESS` finds them.",
    )


class LimitsSection(_Section):
    """What the relay takes at most."""

    message_size: Bytes = _key(
        "50MiB",
        "Largest message. The smaller of this and the upstream's own limit is offered to clients.",
    )
    recipients: Count = _key(1000, "Most recipients of one message; further ones hear 452.")
    sessions: Count = _key(2000, "Most client connections at one time; further ones hear 421.")
    session_idle: Timeout = _key(
        "300s",
        "How long a client may be silent. Restarts on received bytes; off from the final dot to its reply.",
    )
    drain: Seconds = _key(
        "25s",
        "How long running transactions may take to finish after SIGTERM. Stay under the service manager's own limit: "
        "TimeoutStopSec (35 s in our unit) in systemd.",
    )


class LogSection(_Section):
    """One line per message, on stderr."""

    format: Literal["auto", "json", "human"] = _key("auto", '"auto" is "human" on a terminal and "json" elsewhere.')
    level: Literal["debug", "info", "warning", "error"] = _key("info", "Least important lines that are written.")
    addresses: Switch = _key(False, "Whether mail addresses are written. Without them lines carry ids only.")


class Settings(_Section):
    """All settings, in the order in which they are shown."""

    listen: ListenSection = Field(default_factory=ListenSection)
    upstream: UpstreamSection = Field(default_factory=UpstreamSection)
    dedup: DedupSection = Field(default_factory=DedupSection)
    store: StoreSection = Field(default_factory=StoreSection)
    http: HttpSection = Field(default_factory=HttpSection)
    record: RecordSection = Field(default_factory=RecordSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    log: LogSection = Field(default_factory=LogSection)
    rules: Rules = ()
    ignore: Ignores = ()

    @model_validator(mode="after")
    def _kept_apart(self) -> Self:
        if self.record.keep and self.record.keep == self.upstream.url:
            raise ValueError(
                f"record.keep ({self.record.keep}) is the Maildir of upstream.url: suppressed mail would be delivered "
                "there; name another"
            )
        return self

    @model_validator(mode="after")
    def _listens_once(self) -> Self:
        listen, http = self.listen.address, self.http.address
        if http and listen.clashes_with(http):
            raise ValueError(
                f"listen.address ({listen}) and http.address ({http}) are the same place; write another port in one, "
                'or http.address = "" for no metrics'
            )
        return self

    @model_validator(mode="after")
    def _upstream_is_another(self) -> Self:
        for url in self.upstream.smtp_urls:
            if self.listen.address.takes(url.address):
                raise ValueError(
                    f"{self.upstream.key_of(url)} ({url}) is the relay's own listen.address ({self.listen.address}): "
                    "mail would go round in circles; name the mail server"
                )
        return self


TABLES: dict[str, type[RuleTable | IgnoreTable]] = {"rules": RuleTable, "ignore": IgnoreTable}
"""Lists of tables, which stand in the file only."""

SECTIONS = {
    name: cast("type[_Section]", field.annotation)
    for name, field in Settings.model_fields.items()
    if name not in TABLES
}

PASSWORD = "upstream.password"  # noqa: S105 - the name of the key
"""The one key that comes from the environment only."""

KEYS: dict[str, FieldInfo] = {
    f"{section}.{name}": field for section, model in SECTIONS.items() for name, field in model.model_fields.items()
}
"""Every setting by its dotted name."""


def kind_of(key: str) -> str | None:
    """Give what the reference page calls the kind of a dotted key; None for one of a few words."""
    return next((item.name for item in KEYS[key].metadata if isinstance(item, kinds.ValueType)), None)


def environment_name(key: str) -> str:
    """Give the environment variable of a dotted key."""
    return "RELAY_" + key.upper().replace(".", "__")
