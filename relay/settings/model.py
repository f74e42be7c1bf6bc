"""The settings model: all sections, and what must hold between them.

File, environment, flags, `config/relay.toml` and `docs/settings.md` are all derived from it. A key that is not in the
model is refused, so that no operator relies on a key without effect.
"""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Self, cast

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from relay.settings import value_types
from relay.settings.access import check_access
from relay.settings.sections.base import Section
from relay.settings.sections.clients import AuthSection, LimitsSection, ListenSection, TlsSection
from relay.settings.sections.monitor import AdminSection, HttpSection, LogSection
from relay.settings.sections.repeats import DedupSection, RecordSection, StoreSection
from relay.settings.sections.upstream import UpstreamSection
from relay.settings.tables import Ignores, IgnoreTable, Rules, RuleTable


class Settings(Section):
    """All settings, in the order of the reference page."""

    listen: ListenSection = Field(default_factory=ListenSection)
    tls: TlsSection = Field(default_factory=TlsSection)
    auth: AuthSection = Field(default_factory=AuthSection)
    upstream: UpstreamSection = Field(default_factory=UpstreamSection)
    dedup: DedupSection = Field(default_factory=DedupSection)
    store: StoreSection = Field(default_factory=StoreSection)
    http: HttpSection = Field(default_factory=HttpSection)
    admin: AdminSection = Field(default_factory=AdminSection)
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
        if not self.tls.is_offered and (self.listen.tls_address or self.tls.key or self.http.tls):
            key = "listen.tls_address" if self.listen.tls_address else "tls.key" if self.tls.key else "http.tls"
            raise ValueError(
                f"{key} needs tls.certificate, which is missing; name a PEM file with the certificate"
                + ("" if key == "tls.key" else ", or set tls.self_signed = true")
            )
        tls, http = self.listen.tls_address, self.http.address
        for name, other in (("listen.address", self.listen.address), ("http.address", http)):
            if tls and other and other.clashes_with(tls):
                raise ValueError(
                    f"listen.tls_address ({tls}) and {name} ({other}) are the same; write another port in one"
                )
        return self

    @model_validator(mode="after")
    def _is_no_open_relay(self) -> Self:
        addresses = [address for address in (self.listen.address, self.listen.tls_address) if address]
        check_access(addresses, self.listen.networks, self.listen.proxy_networks, self.auth.mode)
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
    name: cast("type[Section]", field.annotation) for name, field in Settings.model_fields.items() if name not in TABLES
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
