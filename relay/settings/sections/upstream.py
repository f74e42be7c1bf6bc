"""The section about the mail servers that receive the mail."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from pathlib import Path
from typing import Self

from pydantic import model_validator

from relay.settings import value_types
from relay.settings.sections.base import Section, setting
from relay.settings.urls import SmtpUrl
from relay.settings.value_types import Count, PathOrNone, Seconds, Switch, Timeout


class UpstreamSection(Section):
    """The mail server that the relay forwards to."""

    url: value_types.Upstream = setting(
        "smtp://127.0.0.1:25",
        "smtp://HOST[:25] (STARTTLS not used), smtp+starttls://HOST[:587] (STARTTLS required), smtps://HOST[:465], "
        "each with USER@ before the host to log in; or maildir:PATH, which writes accepted mail to a Maildir, for "
        "trials.",
    )
    fallback_urls: value_types.Upstreams = setting(
        [],
        "Mail servers to use while the one in upstream.url cannot be reached, in order of preference; written like "
        "upstream.url. A message moves to the next one only before its final dot. The preferred one is used again once "
        "it answers. Users in these URLs log in with the same password, unless upstream.fallback_password_files names "
        "another one.",
    )
    password: value_types.Secret = setting(
        None,
        "The password of the user in upstream.url. From the environment only; overrides upstream.password_file.",
    )
    password_file: PathOrNone = setting(
        "",
        "File whose first line is the password of the user in upstream.url. The relay's user must be able to read it. "
        "Under systemd use a credential, which stays readable for root only: docs/install.md, passwords and keys. "
        '"" = none.',
    )
    fallback_password_files: value_types.Paths = setting(
        [],
        "One file for each URL in upstream.fallback_urls, in the same order, whose first line is the password of the "
        'user there. "" in a place = the password of upstream.url. [] = that password for all.',
    )
    token_file: PathOrNone = setting(
        "",
        "File whose first line is an access token of the user in upstream.url, who then logs in with XOAUTH2 in place "
        "of a password. Another program renews it. The relay reads it again after 5 minutes, and when the upstream "
        'refuses the token. "" = none.',
    )
    token_command: value_types.Command = setting(
        [],
        "Program, with its arguments, that prints such a token in its first line, within 30 s. No shell runs it. The "
        "relay runs it again after 5 minutes, and when the upstream refuses the token. [] = none.",
    )
    ca_file: PathOrNone = setting(
        "",
        'File of the certificate authorities (PEM) to trust for the upstream. "" = those of the system.',
    )
    verify_certificate: Switch = setting(
        True,
        "Whether the upstream's certificate must be valid and name the host in upstream.url.",
    )
    connections: Count = setting(
        20,
        "Largest number of connections to the upstream, per process. Postfix accepts 100 from all clients together.",
    )
    connect_timeout: Timeout = setting(
        "10s",
        "Longest wait for a connection, TLS and login included, the greeting not. All addresses of the host are tried "
        "within it.",
    )
    greeting_timeout: Timeout = setting(
        "60s",
        "Longest wait for the greeting. Servers that test their clients, such as Postfix's postscreen, let them wait.",
    )
    helo_name: value_types.HeloName = setting(
        "",
        "Name in EHLO: a domain that resolves to this host, or an address literal such as [192.0.2.1]. "
        '"" = the full name of this host, or the address of the connection if it has none.',
    )
    reply_timeout: Timeout = setting("120s", "Longest wait for the reply to a command.")
    dot_timeout: Timeout = setting(
        "9m",
        "Longest wait for the reply after the final dot. RFC 5321 asks for 10 minutes. After it the outcome is unknown "
        "(see dedup.on_uncertain).",
    )
    patience: Seconds = setting(
        "20s",
        "How long the relay retries an unreachable or busy upstream before the client receives 451; once per "
        "transaction, before the final dot only. 0 = one try. A pooled connection that has died is replaced in any "
        "case.",
    )
    received_field: Switch = setting(
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
