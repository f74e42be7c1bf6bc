"""Warnings about settings that can be used and still are seldom meant."""

from __future__ import annotations

import re
from typing import Any

import pytest

from relay.settings import Settings
from relay.settings.warnings import warnings


def test_the_defaults_give_no_warning() -> None:
    assert warnings(Settings()) == []


@pytest.mark.parametrize(
    ("values", "mend"),
    [
        ({"dedup": {"window": "9s"}}, 'dedup.window is 9s: .*the default is "10m"'),
        ({"dedup": {"lease": "4m", "wait": "4m"}}, "dedup.lease .4m. is not shorter than dedup.wait .4m."),
        ({"auth": {"users_file": "/u"}}, 'auth.users_file is not read, because auth.mode is "off"'),
        (
            {"auth": {"mode": "passthrough"}, "upstream": {"url": "smtp://h"}},
            r"upstream.url sends the passwords of all users to h:25 unprotected; write smtp\+starttls://",
        ),
        (
            {"auth": {"mode": "passthrough"}, "listen": {"address": "0.0.0.0:2525", "networks": ["10.0.0.0/8"]}},
            'auth.mode = "passthrough" has no effect for clients outside listen.networks: without TLS they cannot log',
        ),
        (
            {"auth": {"mode": "passthrough"}, "listen": {"proxy_networks": ["127.0.0.2/32"]}},
            'auth.mode = "passthrough" has no effect for clients outside listen.networks: without TLS they cannot log',
        ),
        ({"upstream": {"token_file": "/t"}}, "names no user.*write USER@"),
        ({"listen": {"networks": []}}, "no client can send; name the networks"),
        (
            {"listen": {"address": "0.0.0.0:2525"}},
            "listen.networks holds only loopback, but the relay listens on 0.0.0.0:2525: .*; add their networks",
        ),
        (
            {"listen": {"address": "172.17.0.1:2525", "networks": ["127.0.0.1/32"]}},
            "listen.networks holds only loopback, but the relay listens on 172.17.0.1:2525",
        ),
        (
            {"listen": {"address": "unix:/s", "tls_address": "[::]:465"}, "tls": {"self_signed": True}},
            "listen.networks holds only loopback, but the relay listens on .::.:465",
        ),
        (
            {"listen": {"address": "unix:/s", "networks": ["10.0.0.0/8"]}},
            "listen.networks has no effect: the permissions of the Unix socket decide",
        ),
        (
            {"listen": {"address": "unix:/s", "proxy_networks": ["10.0.0.0/8"]}},
            "listen.proxy_networks has no effect: .* clients send no PROXY header",
        ),
        (
            {"listen": {"proxy_networks": ["127.0.0.0/8"]}},
            "listen.proxy_networks holds 127.0.0.1: relay sendmail .*, such as 127.0.0.2",
        ),
        ({"listen": {"socket_mode": "600"}}, "listen.socket_mode has no effect: listen.address is no Unix socket"),
        ({"listen": {"socket_group": "www-data"}}, "listen.socket_group has no effect: "),
        ({"upstream": {"url": "smtps://h", "verify_certificate": False}}, "in upstream.ca_file"),
        ({"upstream": {"password_file": "/p"}}, "names no user.*write USER@"),
        ({"upstream": {"url": "smtp://u@h", "password_file": "/p"}}, r"write smtp\+starttls:// or smtps://"),
        (
            {"upstream": {"fallback_urls": ["smtp://u@h"], "password_file": "/p"}},
            r"upstream.fallback_urls sends the password to h:25 unprotected; write smtp\+starttls://",
        ),
        ({"upstream": {"fallback_urls": ["smtps://h"], "verify_certificate": False}}, "in upstream.ca_file"),
        ({"upstream": {"url": "smtps://u@h", "password_file": "/p", "password": "x"}}, "password_file is not read"),
        ({"limits": {"drain": "31s"}}, "limits.drain is 31s: .*raise TimeoutStopSec"),
        ({"store": {"url": "memory:"}}, "does not know what was sent"),
        ({"store": {"url": "memory:"}, "listen": {"reuse_port": True}}, "do not know what the others have sent"),
        ({"record": {"keep": "maildir:/kept", "keep_for": 0}}, "record.keep has no effect while record.keep_for is 0"),
        ({"record": {"secret_file": "/s", "addresses": True}}, "record.secret_file is not used"),
    ],
)
def test_a_doubt_is_told_with_its_key(values: dict[str, Any], mend: str) -> None:
    (text,) = warnings(Settings(**values))
    assert re.search(mend, text)


@pytest.mark.parametrize(
    "values",
    [
        {"dedup": {"window": 0, "lease": "4m", "wait": "1m"}, "store": {"url": "memory:"}},
        {"dedup": {"window": "10s"}},
        {"limits": {"drain": "30s"}},
        {"listen": {"networks": ["0.0.0.0/0"]}},
        {"listen": {"networks": []}, "auth": {"mode": "file", "users_file": "/u"}},
        {"listen": {"address": "0.0.0.0:2525", "networks": ["10.0.0.0/8"]}},
        {"listen": {"address": "0.0.0.0:2525", "networks": ["127.0.0.0/8", "172.18.0.0/16"]}},
        {"listen": {"address": "[::1]:2525", "tls_address": "localhost:465"}, "tls": {"self_signed": True}},
        {
            "listen": {"address": "0.0.0.0:2525"},
            "auth": {"mode": "file", "users_file": "/u"},
            "tls": {"self_signed": True},
        },
        {"upstream": {"url": "smtp://h", "verify_certificate": False}},
        {"upstream": {"url": "smtp://u@127.0.0.1", "password_file": "/p"}},
        {"upstream": {"url": "maildir:/tmp/mail", "password_file": "/p"}},
        {"upstream": {"fallback_urls": ["smtps://u@h"], "password_file": "/p"}},
        {"listen": {"address": "127.0.0.1:0"}, "upstream": {"url": "smtp://127.0.0.1:25"}},
        {"listen": {"proxy_networks": ["127.0.0.2/32", "::2/128"]}},
        {"listen": {"address": "unix:/s", "socket_mode": "600", "socket_group": "www-data"}},
        {"listen": {"socket_mode": "660", "networks": ["127.0.0.0/8", "::1/128"]}},
    ],
)
def test_what_is_meant_gives_no_warning(values: dict[str, Any]) -> None:
    assert warnings(Settings(**values)) == []
