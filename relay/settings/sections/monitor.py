"""The sections about metrics, health, commands and the log."""

# Without `from __future__ import annotations`, because pydantic evaluates the annotations when a class is created.
from typing import Literal, Self

from pydantic import model_validator

from relay.settings.access import open_networks
from relay.settings.sections.base import Section, setting
from relay.settings.value_types import AddressOrNone, HostNames, Networks, OpenPaths, PathOrNone, SocketOrNone, Switch


class HttpSection(Section):
    """The web page, metrics and health. docs/page.md explains them."""

    address: AddressOrNone = setting(
        "127.0.0.1:9625",
        'Address of the web page, /metrics, /livez and /readyz. "" = off. On another address than a loopback one the '
        "page is shown only to users who log in over TLS.",
    )
    users_file: PathOrNone = setting(
        "",
        "File of the names and hashed passwords of those who may open the page, which `relay user --page` writes. Read "
        'again when it changes. "" = no login: every user of this host may open the page, and no other host.',
    )
    tls: Switch = setting(
        False, "Whether http.address speaks TLS (https), with the certificate in tls.certificate or tls.self_signed."
    )
    proxy_networks: Networks = setting(
        [],
        "Networks of reverse proxies, in CIDR form, that speak TLS to browsers and send X-Forwarded-For and "
        "X-Forwarded-Proto. From other networks these fields are not read. Needs http.users_file.",
    )
    host_names: HostNames = setting(
        [],
        "Names in the address with which browsers open the page, such as relay.example.com. IP addresses, localhost "
        "and the name in http.address need not be in it.",
    )
    open_paths: OpenPaths = setting(
        ["/metrics", "/livez", "/readyz"],
        "Those of these three paths that everyone who reaches http.address may read; the others need what the page "
        "needs.",
    )

    @model_validator(mode="after")
    def _knows_users_behind_proxies(self) -> Self:
        if self.proxy_networks and not self.users_file:
            raise ValueError(
                "http.proxy_networks needs http.users_file, which is missing: everyone who reaches the proxy could "
                "open the page; name a file, and add users with relay user add --page"
            )
        if wide := open_networks(self.proxy_networks):
            raise ValueError(
                f"http.proxy_networks holds {wide[0]}: every host in it could claim to be another one; name the "
                "addresses of your proxies only"
            )
        return self


class AdminSection(Section):
    """Where commands on this host ask the running relay: `status`, `check`, `config`, `why`, `forget` and others."""

    socket: SocketOrNone = setting(
        "",
        "Unix socket of the running relay, with mode 660 and the group of the service: its members, its user and root "
        "may use it. Default: admin.sock in $RUNTIME_DIRECTORY, which systemd sets; without this variable the relay "
        "has none, and commands look for /run/smtp-dedup-relay/admin.sock. docs/security.md says what its users may "
        "do.",
    )


class LogSection(Section):
    """The log on stderr: one line per message."""

    format: Literal["auto", "json", "human"] = setting("auto", '"auto" is "human" on a terminal and "json" elsewhere.')
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level that is written.")
    addresses: Switch = setting(False, "Whether log lines contain mail addresses. If not, they contain ids only.")
