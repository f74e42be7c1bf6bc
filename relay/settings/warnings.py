"""Warnings about valid settings that are probably not intended."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from relay.settings.addresses import HostPort, UnixAddress
from relay.settings.rule_warnings import SHORT_WINDOW, rule_warnings
from relay.settings.sections.clients import ListenSection
from relay.settings.units import format_duration
from relay.settings.urls import MemoryUrl, Security

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.settings.model import Settings

_LOOPBACK = ip_address("127.0.0.1")
LONG_DRAIN = 30
"""Seconds. `TimeoutStopSec` in the systemd unit is slightly more."""


def warnings(settings: Settings, tables_from: str = "") -> list[str]:
    """Returns one sentence for each warning. It begins with the key to change.

    `tables_from` names the source of rules and ignores, if there is one.
    """
    return [
        *_networks(settings),
        *_listen(settings),
        *_auth(settings),
        *_upstream(settings),
        *_dedup(settings),
        *rule_warnings(settings, tables_from),
        *_store(settings),
        *_http(settings),
        *_record(settings),
        *_limits(settings),
    ]


def _networks(settings: Settings) -> Iterator[str]:
    """Warns where no client can send, or no client of another host."""
    listen = settings.listen
    addresses = [address for address in (listen.address, listen.tls_address) if isinstance(address, HostPort)]
    if not addresses or settings.auth.mode in {"file", "passthrough"}:
        return
    if not listen.networks:
        yield "listen.networks is empty: no client can send; name the networks of your applications"
    elif all(network.is_loopback for network in listen.networks):
        for address in addresses:
            if not address.loopback:
                yield (
                    f"listen.networks holds only loopback, but the relay listens on {address}: it refuses every client "
                    "on another host or in another container; add their networks, such as 172.16.0.0/12 for Docker"
                )


def _listen(settings: Settings) -> Iterator[str]:
    listen, defaults = settings.listen, ListenSection()
    on_unix_socket = isinstance(listen.address, UnixAddress)
    has_port = bool(listen.tls_address) or not on_unix_socket
    for key, acts, reason in (
        ("networks", has_port, "the permissions of the Unix socket decide who may send; see listen.socket_mode"),
        ("proxy_networks", has_port, "listen.address is a Unix socket, whose clients send no PROXY header"),
        ("socket_mode", on_unix_socket, "listen.address is no Unix socket"),
        ("socket_group", on_unix_socket, "listen.address is no Unix socket"),
    ):
        if not acts and getattr(listen, key) != getattr(defaults, key):
            yield f"listen.{key} has no effect: {reason}"
    if has_port and any(_LOOPBACK in network for network in listen.proxy_networks):
        yield (
            f"listen.proxy_networks holds {_LOOPBACK}: relay sendmail and other programs of this host send no PROXY "
            "header and are refused; let the balancer connect from an address of its own, such as 127.0.0.2"
        )


def _auth(settings: Settings) -> Iterator[str]:
    auth, upstream = settings.auth, settings.upstream
    if auth.users_file and auth.mode != "file":
        yield f'auth.users_file is not read, because auth.mode is "{auth.mode}"; write auth.mode = "file"'
    listen = settings.listen
    addresses = [address for address in (listen.address, listen.tls_address) if address]
    if (
        auth.mode in {"file", "passthrough"}
        and not settings.tls.is_offered
        and (listen.proxy_networks or not all(address.loopback for address in addresses))
    ):
        yield (
            f'auth.mode = "{auth.mode}" has no effect for clients outside listen.networks: without TLS they cannot log '
            "in; set tls.certificate, or tls.self_signed = true for clients that do not verify"
        )
    for url in upstream.smtp_urls if auth.mode == "passthrough" else ():
        if url.security is Security.NONE and not url.address.loopback:
            yield (
                f"{upstream.key_of(url)} sends the passwords of all users to {url.address} unprotected; write "
                "smtp+starttls:// or smtps://"
            )


def _upstream(settings: Settings) -> Iterator[str]:
    upstream, urls = settings.upstream, settings.upstream.smtp_urls
    if not urls:
        return
    if not upstream.verify_certificate and any(url.security is not Security.NONE for url in urls):
        yield (
            "upstream.verify_certificate is false: an attacker on the network can read the mail and the password; "
            "name the upstream's certificate authority in upstream.ca_file instead"
        )
    login = [url for url in urls if url.user is not None]
    if not login and (upstream.password or upstream.password_file or upstream.uses_token):
        yield "upstream.url names no user, so the password is not used; write USER@ before its host"
    for url in login:
        if url.security is Security.NONE and not url.address.loopback:
            yield (
                f"{upstream.key_of(url)} sends the password to {url.address} unprotected; write smtp+starttls:// or "
                "smtps://"
            )
    if upstream.password and upstream.password_file:
        yield "upstream.password_file is not read, because the environment gives a password"


def _dedup(settings: Settings) -> Iterator[str]:
    dedup = settings.dedup
    if 0 < dedup.window < SHORT_WINDOW:
        yield (
            f"dedup.window is {format_duration(dedup.window)}: repeats often come later than that and will be "
            'forwarded; the default is "10m", and 0 turns suppression off'
        )
    if dedup.window and dedup.lease >= dedup.wait:
        yield (
            f"dedup.lease ({format_duration(dedup.lease)}) is not shorter than dedup.wait "
            f"({format_duration(dedup.wait)}): if a process dies, clients that wait for its message receive 451 "
            "before another process takes over"
        )


def _store(settings: Settings) -> Iterator[str]:
    if not settings.dedup.window or not isinstance(settings.store.url, MemoryUrl):
        return
    if settings.listen.reuse_port:
        yield (
            "store.url is memory: and listen.reuse_port is true: relays that share the address do not know what the "
            "others have sent, and forward repeats of it; write sqlite:PATH or redis://HOST"
        )
    else:
        yield "store.url is memory: - after a restart the relay does not know what was sent, and forwards repeats of it"


def _http(settings: Settings) -> Iterator[str]:
    http = settings.http
    if http.users_file and http.address and not (http.address.loopback or http.tls or http.proxy_networks):
        yield (
            "http.users_file: nobody can log in from other hosts, because http.address speaks no TLS; set http.tls = "
            "true, or name a proxy in http.proxy_networks"
        )


def _record(settings: Settings) -> Iterator[str]:
    record = settings.record
    if record.keep and not record.keep_for:
        yield "record.keep has no effect while record.keep_for is 0; set record.keep_for, or remove record.keep"
    if record.secret_file and record.addresses:
        yield "record.secret_file is not used, because record.addresses is true; remove it"


def _limits(settings: Settings) -> Iterator[str]:
    drain = settings.limits.drain
    if drain > LONG_DRAIN:
        yield (
            f"limits.drain is {format_duration(drain)}: systemd kills the relay 35s after SIGTERM; raise "
            "TimeoutStopSec in the unit above it"
        )
