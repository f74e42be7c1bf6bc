"""The sections about repeats: what counts as one, and where claims and traces are stored."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import PlainSerializer, PlainValidator, model_validator

from relay.settings import value_types
from relay.settings.presets import parse_presets
from relay.settings.sections.base import Section, setting
from relay.settings.urls import RedisUrl
from relay.settings.value_types import Bytes, KeepOrNone, PathOrNone, Seconds, Switch, Timeout

Presets: TypeAlias = Annotated[
    tuple[str, ...],
    value_types.ValueType("list of presets"),
    PlainValidator(parse_presets),
    PlainSerializer(list, return_type=list[str]),
]


class DedupSection(Section):
    """What counts as a repeat, and what happens to it."""

    window: Seconds = setting(
        "10m",
        "How long an accepted message suppresses its repeats. 0 = off. Use 1h if the senders are mail servers, which "
        "retry after 5 to 30 minutes.",
    )
    mode: Literal["enforce", "observe"] = setting(
        "enforce",
        '"enforce" suppresses repeats; "observe" forwards everything and counts what it would have suppressed.',
    )
    lease: Annotated[Seconds, value_types.at_least(1)] = setting(
        "30s",
        "How long a message stays claimed after the process that delivers it has died. Renewed every third of it.",
    )
    wait: Seconds = setting(
        "240s",
        "Longest wait of a simultaneous repeat for the outcome of the first copy, from the repeat's final dot; then "
        "451. Keep it below the client's limit: 300 s in PHPMailer, 100 s in Postfix's before-queue proxy.",
    )
    presets: Presets = setting(
        ["avideo", "codes", "monitoring"],
        "Rules and ignores for known applications, applied after those of this file; docs/rules.md describes them. "
        "[] = none.",
    )
    key_header: value_types.FieldNames = setting(
        [],
        'Header fields in which applications say what is a repeat, such as ["X-Idempotency-Key"], '
        '["Resend-Idempotency-Key"] (Resend) or ["X-EE-Idempotency-Key"] (EmailEngine). A message with exactly one of '
        "them is a repeat of a message with the same key, From, reverse-path domain and recipient, whatever its "
        "content; docs/rules.md says when to use it. [] = none.",
    )
    on_uncertain: Literal["release", "keep"] = setting(
        "release",
        'If the upstream disconnects after the final dot without a reply: "release" forwards a retry (possibly a '
        'duplicate), "keep" counts the message as sent (possibly a loss; for senders that retry by themselves).',
    )
    reply: Literal["same", "explain"] = setting(
        "same",
        'What the client of a suppressed repeat receives: "same" = the words that the first copy received (without '
        'addresses, at most 100 characters); "explain" = "250 2.0.0 Ok: duplicate, record ID, first sent 34 s ago", '
        "which tells every client what others have sent (docs/security.md). Log, metrics and traces name repeats in "
        "both cases.",
    )


class StoreSection(Section):
    """Where the relay stores claims and traces."""

    url: value_types.Store = setting(
        "sqlite:/var/lib/smtp-dedup-relay/relay.db",
        "sqlite:PATH; redis://[:PASSWORD@]HOST[:6379], rediss://HOST (TLS), unix:///SOCKET (Redis or Valkey 6.2 or "
        "newer); redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST,HOST/SERVICE[?db=N] (login of the primary; option "
        "sentinel_password for the sentinels); redis+cluster://[:PASSWORD@]HOST[:6379],HOST; or memory:, "
        "which loses everything at a restart. Default: relay.db in $STATE_DIRECTORY, which systemd sets; else "
        "/var/lib/smtp-dedup-relay for root, and smtp-dedup-relay in $XDG_STATE_HOME or ~/.local/state for others.",
    )
    timeout: Timeout = setting(
        "1s",
        "Longest wait for the store. After it mail is forwarded without a claim: a duplicate is better than a loss.",
    )
    password_file: PathOrNone = setting(
        "",
        "File whose first line is the password of a Redis server, in place of one in store.url. The relay's user must "
        'be able to read it. "" = none. A password in store.url belongs into the settings file or RELAY_STORE__URL, '
        "never into a flag, which every user of the host can see.",
    )
    namespace: value_types.Namespace = setting(
        "",
        "Separates relays that share one Redis server, such as staging and production: 32 letters, digits, _ and - at "
        "most. All relays of one namespace share their claims and traces.",
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


class RecordSection(Section):
    """What the relay keeps about messages: their traces, and copies of suppressed ones."""

    trace: Literal["all", "repeats"] = setting(
        "all",
        'Which messages leave a trace, which `relay why` and the page show: "all" of them, or only "repeats".',
    )
    keep_for: Seconds = setting(
        "30d", "How long traces are kept. They contain no content; docs/records.md says what they do. 0 = no traces."
    )
    size: Annotated[Bytes, value_types.size_at_least(1024 * 1024)] = setting(
        "100MiB",
        "Size of all traces; beyond it the oldest are deleted. 100MiB are some 300,000 messages. For Redis it is "
        "memory of the server.",
    )
    subjects: Switch = setting(False, "Whether traces contain the subjects of messages.")
    keep: KeepOrNone = setting(
        "",
        "maildir:PATH keeps the suppressed messages themselves as long as their traces, so that `relay release` can "
        'send one. The folder holds whole mails: only the relay should be able to read it. "" = not kept.',
    )
    secret_file: PathOrNone = setting(
        "",
        "File whose first line (32 characters or more) is the key that hashes mail addresses in traces; created if "
        "missing. All hosts of one store need the same key. "
        '"" = record.key beside the file of a sqlite: store, else in the state folder.',
    )
    addresses: Switch = setting(
        False,
        "Whether traces contain mail addresses. If not, they contain a hash, by which `relay why ADDRESS` finds them.",
    )
