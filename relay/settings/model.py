"""The settings model: name, type, default and description of every setting.

File, environment, flags, `config/relay.toml` and `docs/settings.md` are all derived from it. A key that is not in the
model is refused, so that no operator relies on a key without effect.
"""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator
from pydantic.fields import FieldInfo

from relay.settings import value_types
from relay.settings.access import check_access
from relay.settings.presets import parse_presets
from relay.settings.tables import Ignores, IgnoreTable, Rules, RuleTable
from relay.settings.urls import RedisUrl, SmtpUrl
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
    value_types.ValueType("list of presets"),
    PlainValidator(parse_presets),
    PlainSerializer(list, return_type=list[str]),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _key(default: object, description: str) -> Any:
    """Declares a key with its default as an operator would write it."""
    return Field(default=default, description=description, validate_default=True)


class ListenSection(_Section):
    """Where clients connect."""

    address: Address = _key(
        "127.0.0.1:2525",
        'Address for SMTP clients. "0.0.0.0:2525" or "[::]:2525" means all addresses; with port 0 the system chooses.',
    )
    tls_address: AddressOrNone = _key(
        "",
        "Address for SMTP clients that begin with TLS (implicit TLS, usually port 465). Needs tls.certificate. "
        '"" = none.',
    )
    networks: Networks = _key(
        ["127.0.0.0/8", "::1/128"],
        "Networks whose clients may send without a login, in CIDR form, and log in without TLS. Other clients receive "
        "554, or with auth.mode file or passthrough may send once they have logged in over TLS.",
    )


class TlsSection(_Section):
    """The certificate that clients see. With one, the relay offers STARTTLS, and TLS 1.2 or newer."""

    certificate: PathOrNone = _key(
        "",
        "PEM file with the certificate and those of its issuers. Read again on SIGHUP (systemctl kill --signal=HUP). "
        '"" = none; then clients that require TLS cannot send.',
    )
    key: PathOrNone = _key("", 'PEM file with the private key, without a password. "" = in tls.certificate.')


class AuthSection(_Section):
    """Logins of clients (AUTH). docs/auth.md explains them."""

    mode: Literal["off", "file", "passthrough", "any"] = _key(
        "off",
        '"off" offers no AUTH; "file" verifies logins against auth.users_file; "passthrough" logs in at the upstream '
        'with the name and password of the client, and the upstream decides; "any" accepts every login, for '
        "applications in listen.networks that cannot send without one.",
    )
    users_file: PathOrNone = _key(
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


class UpstreamSection(_Section):
    """The mail server that the relay forwards to."""

    url: value_types.Upstream = _key(
        "smtp://127.0.0.1:25",
        "smtp://HOST[:25] (STARTTLS not used), smtp+starttls://HOST[:587] (STARTTLS required), smtps://HOST[:465], "
        "each with USER@ before the host to log in; or maildir:PATH, which writes accepted mail to a Maildir, for "
        "trials.",
    )
    fallback_urls: value_types.Upstreams = _key(
        [],
        "Mail servers to use while the one in upstream.url cannot be reached, in order of preference; written like "
        "upstream.url. A message moves to the next one only before its final dot. The preferred one is used again once "
        "it answers. Users in these URLs log in with the same password, unless upstream.fallback_password_files names "
        "another one.",
    )
    password: value_types.Secret = _key(
        None,
        "The password of the user in upstream.url. From the environment only; overrides upstream.password_file.",
    )
    password_file: PathOrNone = _key(
        "",
        "File whose first line is the password of the user in upstream.url. The relay's user must be able to read it. "
        "Under systemd write RELAY_UPSTREAM__PASSWORD=... into /etc/smtp-dedup-relay/environment instead, which "
        'systemd reads as root (mode 600). "" = none.',
    )
    fallback_password_files: value_types.Paths = _key(
        [],
        "One file for each URL in upstream.fallback_urls, in the same order, whose first line is the password of the "
        'user there. "" in a place = the password of upstream.url. [] = that password for all.',
    )
    token_file: PathOrNone = _key(
        "",
        "File whose first line is an access token of the user in upstream.url, who then logs in with XOAUTH2 in place "
        "of a password. Another program renews it. The relay reads it again after 5 minutes, and when the upstream "
        'refuses the token. "" = none.',
    )
    token_command: value_types.Command = _key(
        [],
        "Program, with its arguments, that prints such a token in its first line, within 30 s. No shell runs it. The "
        "relay runs it again after 5 minutes, and when the upstream refuses the token. [] = none.",
    )
    ca_file: PathOrNone = _key(
        "",
        'File of the certificate authorities (PEM) to trust for the upstream. "" = those of the system.',
    )
    verify_certificate: Switch = _key(
        True,
        "Whether the upstream's certificate must be valid and name the host in upstream.url.",
    )
    connections: Count = _key(
        20,
        "Largest number of connections to the upstream, per process. Postfix accepts 100 from all clients together.",
    )
    connect_timeout: Timeout = _key(
        "10s",
        "Longest wait for a connection, TLS and login included, the greeting not. All addresses of the host are tried "
        "within it.",
    )
    greeting_timeout: Timeout = _key(
        "60s",
        "Longest wait for the greeting. Servers that test their clients, such as Postfix's postscreen, let them wait.",
    )
    helo_name: value_types.HeloName = _key(
        "",
        "Name in EHLO: a domain that resolves to this host, or an address literal such as [192.0.2.1]. "
        '"" = the full name of this host, or the address of the connection if it has none.',
    )
    reply_timeout: Timeout = _key("120s", "Longest wait for the reply to a command.")
    dot_timeout: Timeout = _key(
        "9m",
        "Longest wait for the reply after the final dot. RFC 5321 asks for 10 minutes. After it the outcome is unknown "
        "(see dedup.on_uncertain).",
    )
    patience: Seconds = _key(
        "20s",
        "How long the relay retries an unreachable or busy upstream before the client receives 451; once per "
        "transaction, before the final dot only. 0 = one try. A pooled connection that has died is replaced in any "
        "case.",
    )
    received_field: Switch = _key(
        True,
        "Whether the relay adds a Received field to each message. Without it mail loops are not recognised.",
    )

    @model_validator(mode="after")
    def _fallbacks_are_others(self) -> Self:
        if self.fallback_urls and not isinstance(self.url, SmtpUrl):
            raise ValueError(
                "upstream.fallback_urls needs a mail server in upstream.url, which is a Maildir; remove one of them"
            )
        addresses = [url.address for url in self.smtp_urls]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"{address} appears twice in upstream.url and upstream.fallback_urls; write it once")
        return self

    @property
    def smtp_urls(self) -> tuple[SmtpUrl, ...]:
        """All mail servers in order of preference; empty if the upstream is a Maildir."""
        return (self.url, *self.fallback_urls) if isinstance(self.url, SmtpUrl) else ()

    def key_of(self, url: SmtpUrl) -> str:
        """Returns the key of the setting that contains one of `smtp_urls`."""
        return "upstream.url" if url == self.url else "upstream.fallback_urls"

    @model_validator(mode="after")
    def _passwords_fit(self) -> Self:
        files, urls = self.fallback_password_files, self.fallback_urls
        if files and len(files) != len(urls):
            raise ValueError(
                f"upstream.fallback_password_files has {len(files)} files, and upstream.fallback_urls has {len(urls)} "
                'URLs; write one file for each URL, or "" for the password of upstream.url'
            )
        if self.token_file and self.token_command:
            raise ValueError("upstream.token_file and upstream.token_command are both set; remove one of them")
        return self

    @property
    def uses_token(self) -> bool:
        """Whether the user in `url` logs in with an access token."""
        return bool(self.token_file or self.token_command)

    def fallback_password_file(self, url: SmtpUrl) -> Path | None:
        """Returns the file with the password of one of `fallback_urls`, if it has its own."""
        files = dict(zip(self.fallback_urls, self.fallback_password_files, strict=False))
        return files.get(url)

    def _needs_password(self, url: SmtpUrl) -> bool:
        own = self.uses_token if url == self.url else self.fallback_password_file(url)
        return bool(url.user) and not own

    @model_validator(mode="after")
    def _user_has_password(self) -> Self:
        if any(self._needs_password(url) for url in self.smtp_urls) and not (self.password or self.password_file):
            raise ValueError(
                "upstream.url names a user, but there is no password; write it to a file and name that in "
                "upstream.password_file, or set RELAY_UPSTREAM__PASSWORD"
            )
        return self


class DedupSection(_Section):
    """What counts as a repeat, and what happens to it."""

    window: Seconds = _key(
        "10m",
        "How long an accepted message suppresses its repeats. 0 = off. Use 1h if the senders are mail servers, which "
        "retry after 5 to 30 minutes.",
    )
    mode: Literal["enforce", "observe"] = _key(
        "enforce",
        '"enforce" suppresses repeats; "observe" forwards everything and counts what it would have suppressed.',
    )
    lease: Annotated[Seconds, value_types.at_least(1)] = _key(
        "30s",
        "How long a message stays claimed after the process that delivers it has died. Renewed every third of it.",
    )
    wait: Seconds = _key(
        "240s",
        "Longest wait of a simultaneous repeat for the outcome of the first copy, from the repeat's final dot; then "
        "451. Keep it below the client's limit: 300 s in PHPMailer, 100 s in Postfix's before-queue proxy.",
    )
    presets: Presets = _key(
        ["avideo", "codes", "monitoring"],
        "Rules and ignores for known applications, applied after those of this file; docs/rules.md describes them. "
        "[] = none.",
    )
    key_header: value_types.FieldNames = _key(
        [],
        'Header fields in which applications say what is a repeat, such as ["X-Idempotency-Key"], '
        '["Resend-Idempotency-Key"] (Resend) or ["X-EE-Idempotency-Key"] (EmailEngine). A message with exactly one of '
        "them is a repeat of a message with the same key, From, reverse-path domain and recipient, whatever its "
        "content; docs/rules.md says when to use it. [] = none.",
    )
    on_uncertain: Literal["release", "keep"] = _key(
        "release",
        'If the upstream disconnects after the final dot without a reply: "release" forwards a retry (possibly a '
        'duplicate), "keep" counts the message as sent (possibly a loss; for senders that retry by themselves).',
    )
    reply: Literal["same", "explain"] = _key(
        "same",
        'What the client of a suppressed repeat receives: "same" = the words that the first copy received (without '
        'addresses, at most 100 characters); "explain" = "250 2.0.0 Ok: duplicate, record ID, first sent 34 s ago", '
        "which tells every client what others have sent (docs/security.md). Log, metrics and records name repeats in "
        "both cases.",
    )


class StoreSection(_Section):
    """Where the relay stores claims and records."""

    url: value_types.Store = _key(
        "sqlite:/var/lib/smtp-dedup-relay/relay.db",
        "sqlite:PATH; redis://[:PASSWORD@]HOST[:6379], rediss://HOST (TLS), unix:///SOCKET (Redis or Valkey 6.2 or "
        "newer); redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST,HOST/SERVICE[?db=N] (login of the primary; option "
        "sentinel_password for the sentinels); redis+cluster://[:PASSWORD@]HOST[:6379],HOST; or memory:, "
        "which loses everything at a restart. Default: relay.db in $STATE_DIRECTORY, which systemd sets; else "
        "/var/lib/smtp-dedup-relay for root, and smtp-dedup-relay in $XDG_STATE_HOME or ~/.local/state for others.",
    )
    timeout: Timeout = _key(
        "1s",
        "Longest wait for the store. After it mail is forwarded without a claim: a duplicate is better than a loss.",
    )
    password_file: PathOrNone = _key(
        "",
        "File whose first line is the password of a Redis server, in place of one in store.url. The relay's user must "
        'be able to read it. "" = none. A password in store.url belongs into the settings file or RELAY_STORE__URL, '
        "never into a flag, which every user of the host can see.",
    )
    namespace: value_types.Namespace = _key(
        "",
        "Separates relays that share one Redis server, such as staging and production: 32 letters, digits, _ and - at "
        "most. All relays of one namespace share their claims and records.",
    )

    @model_validator(mode="after")
    def _is_redis(self) -> Self:
        for name in ("password_file", "namespace"):
            if getattr(self, name) and not isinstance(self.url, RedisUrl):
                raise ValueError(
                    f"store.{name} is for Redis, and store.url is {self.url}; leave it out"
                    + ("; name another file to separate relays" if name == "namespace" else "")
                )
        return self


class HttpSection(_Section):
    """Metrics and health."""

    address: AddressOrNone = _key("127.0.0.1:9625", 'Address for /metrics, /livez and /readyz. "" = off.')


class RecordSection(_Section):
    """What the relay keeps about suppressed messages."""

    keep_for: Seconds = _key(
        "30d",
        "How long records of suppressions are kept; `relay suppressed` and `relay why` read them. They hold no "
        "content. 0 = no records.",
    )
    keep: KeepOrNone = _key(
        "",
        "maildir:PATH keeps the suppressed messages themselves as long as their records, so that `relay release` can "
        'send one. The folder holds whole mails: only the relay should be able to read it. "" = not kept.',
    )
    secret_file: PathOrNone = _key(
        "",
        "File whose first line (32 characters or more) is the key that hashes mail addresses in records; created if "
        "missing. All hosts of one store need the same key. "
        '"" = record.key beside the file of a sqlite: store, else in the state folder.',
    )
    addresses: Switch = _key(
        False,
        "Whether records contain mail addresses. If not, they contain a hash, by which `relay why ADDRESS` finds them.",
    )


class LimitsSection(_Section):
    """Limits of what the relay accepts."""

    message_size: Bytes = _key(
        "50MiB",
        "Largest message. The smaller of this and the upstream's own limit is offered to clients. 0 = the upstream's "
        "limit only.",
    )
    memory: Annotated[Bytes, value_types.size_at_least(1024 * 1024)] = _key(
        "256MiB",
        "Memory for the content of all messages in the relay together, from DATA to the reply. While it is used up, "
        "DATA waits for 5 s and then receives 452. A larger message than this is refused, and not offered in SIZE. "
        "The process takes up to three times as much. Default: 256MiB, or a quarter of the memory of the machine or "
        "of the control group if that is less.",
    )
    recipients: Count = _key(1000, "Largest number of recipients of one message; further ones receive 452.")
    sessions: Count = _key(
        2000,
        "Largest number of client connections; further ones receive 421. One client gets at most 95 % of them, so that "
        "others find a place. Each needs a file descriptor: the relay raises the soft limit of descriptors to the hard "
        "one (LimitNOFILE= in systemd), and admits fewer clients if that is too low.",
    )
    session_idle: Timeout = _key(
        "300s",
        "How long a client may be silent. Restarts when bytes arrive; stopped from the final dot to its reply.",
    )
    drain: Seconds = _key(
        "25s",
        "How long running transactions, and the last writes after them, may take after SIGTERM. The process ends one "
        "second later at the latest. Keep it below the service manager's limit: TimeoutStopSec in systemd (35 s in the "
        "unit of this package).",
    )


class LogSection(_Section):
    """The log on stderr: one line per message."""

    format: Literal["auto", "json", "human"] = _key("auto", '"auto" is "human" on a terminal and "json" elsewhere.')
    level: Literal["debug", "info", "warning", "error"] = _key("info", "Lowest level that is written.")
    addresses: Switch = _key(False, "Whether log lines contain mail addresses. If not, they contain ids only.")


class Settings(_Section):
    """All settings, in the order of the reference page."""

    listen: ListenSection = Field(default_factory=ListenSection)
    tls: TlsSection = Field(default_factory=TlsSection)
    auth: AuthSection = Field(default_factory=AuthSection)
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
                "there; name another one"
            )
        return self

    @model_validator(mode="after")
    def _listens_once(self) -> Self:
        listen, http = self.listen.address, self.http.address
        if http and listen.clashes_with(http):
            raise ValueError(
                f"listen.address ({listen}) and http.address ({http}) are the same; write another port in one, "
                'or http.address = "" for no metrics'
            )
        return self

    @model_validator(mode="after")
    def _has_certificate(self) -> Self:
        if self.tls.certificate is None and (self.listen.tls_address or self.tls.key):
            key = "listen.tls_address" if self.listen.tls_address else "tls.key"
            raise ValueError(f"{key} needs tls.certificate, which is missing; name a PEM file with the certificate")
        tls, http = self.listen.tls_address, self.http.address
        for name, other in (("listen.address", self.listen.address), ("http.address", http)):
            if tls and other and tls.clashes_with(other):
                raise ValueError(
                    f"listen.tls_address ({tls}) and {name} ({other}) are the same; write another port in one"
                )
        return self

    @model_validator(mode="after")
    def _is_no_open_relay(self) -> Self:
        addresses = [address for address in (self.listen.address, self.listen.tls_address) if address]
        check_access(addresses, self.listen.networks, self.auth.mode)
        if self.auth.mode == "passthrough" and not self.upstream.smtp_urls:
            raise ValueError(
                f'auth.mode = "passthrough" needs a mail server, and upstream.url is {self.upstream.url}; write smtp://HOST'
            )
        return self

    @model_validator(mode="after")
    def _upstream_is_another(self) -> Self:
        for url in self.upstream.smtp_urls:
            for key, own in ("listen.address", self.listen.address), ("listen.tls_address", self.listen.tls_address):
                if own is None or not own.takes(url.address):
                    continue
                raise ValueError(
                    f"{self.upstream.key_of(url)} ({url}) is the relay's own {key} ({own}): "
                    "mail would loop; name the mail server"
                )
        return self


TABLES: dict[str, type[RuleTable | IgnoreTable]] = {"rules": RuleTable, "ignore": IgnoreTable}
"""Lists of tables. Only the file can contain them."""

SECTIONS = {
    name: cast("type[_Section]", field.annotation)
    for name, field in Settings.model_fields.items()
    if name not in TABLES
}

PASSWORD = "upstream.password"  # noqa: S105 - the name of the key
"""The one key that only the environment can set."""

KEYS: dict[str, FieldInfo] = {
    f"{section}.{name}": field for section, model in SECTIONS.items() for name, field in model.model_fields.items()
}
"""All settings by dotted key, such as `listen.address`."""


def type_name(key: str) -> str | None:
    """Returns the type name of a dotted key for the reference page; None if the key takes one of a few words."""
    return next((item.name for item in KEYS[key].metadata if isinstance(item, value_types.ValueType)), None)


def environment_name(key: str) -> str:
    """Returns the environment variable of a dotted key."""
    return "RELAY_" + key.upper().replace(".", "__")
