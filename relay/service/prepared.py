"""What a relay reads and compiles from its settings before it uses any of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.service.build import build_pseudonyms, build_users, memory_size
from relay.service.build_upstream import UpstreamPlan, plan_upstream
from relay.service.certificates import build_certificate
from relay.settings.passwords import store_password, upstream_password
from relay.settings.rules import build_judge

if TYPE_CHECKING:
    from relay.judge.judge import Judge
    from relay.logins.users import FileAuthenticator
    from relay.records.pseudonyms import Pseudonyms
    from relay.settings import Loaded
    from relay.smtp.certificate import ServerCertificate


@dataclass(frozen=True)
class Prepared:
    """The settings, and all that may fail or take long to make of them."""

    loaded: Loaded
    judge: Judge
    upstream: UpstreamPlan
    users: FileAuthenticator | None
    certificate: ServerCertificate | None
    pseudonyms: Pseudonyms
    memory_size: int
    """Bytes."""
    store_password: str | None = field(repr=False)
    """The password in `store.password_file` at the start, which only a restart changes."""


def prepare(loaded: Loaded, before: Prepared | None = None) -> Prepared:
    """Reads certificates, passwords and users, and compiles the rules; changes nothing. Blocks, so call it in a thread.

    Raises `SettingsError` for a file that cannot be used.
    """
    settings = loaded.settings
    # A key that could not be saved is another one each time.
    same_key = before is not None and before.loaded.settings.record == settings.record
    return Prepared(
        loaded,
        judge=build_judge(settings),
        upstream=plan_upstream(settings, upstream_password(settings)),
        users=build_users(settings),
        certificate=build_certificate(settings),
        pseudonyms=before.pseudonyms if before and same_key else build_pseudonyms(settings),
        memory_size=memory_size(settings),
        store_password=before.store_password if before else store_password(settings),
    )
