"""The model guards itself, also where it is used without `load`."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from pydantic import PlainSerializer, ValidationError

from relay.settings import Settings
from relay.settings.model import KEYS, SECTIONS
from relay.settings.sections.upstream import UpstreamSection
from relay.settings.value_types import FileMode


def test_an_unknown_key_or_section_is_refused() -> None:
    for values in ({"dedup": {"windw": "1h"}}, {"deduq": {}}):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            Settings.model_validate(values)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().dedup.window = 5


def test_an_error_does_not_show_what_was_put_in() -> None:
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({"upstream": {"url": "smtp://user:xyzzy@mail"}})
    assert "xyzzy" not in str(error.value)


def test_defaults_are_written_as_an_operator_would() -> None:
    settings = Settings()
    given = {
        name: {key: KEYS[f"{name}.{key}"].default for key in model.model_fields} for name, model in SECTIONS.items()
    }
    assert Settings.model_validate(given) == settings
    assert settings.upstream.dot_timeout == 540
    assert settings.limits.message_size == 52428800


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525"),
        ("127.0.0.1:2525", "LOCALHOST.:2525"),
        ("0.0.0.0:2525", "127.0.0.1:2525"),
        ("[::]:2525", "127.0.0.1:2525"),
        ("[::]:2525", "[::1]:2525"),
        ("mx.example.org:25", "MX.example.org"),
    ],
)
def test_the_relay_is_not_its_own_upstream(listen: str, upstream: str) -> None:
    with pytest.raises(ValidationError, match=r"own listen\.address .*mail would loop; name the mail server"):
        Settings.model_validate({"listen": {"address": listen}, "upstream": {"url": f"smtp://{upstream}"}})


def test_suppressed_mail_is_not_kept_where_mail_is_delivered() -> None:
    values = {"upstream": {"url": "maildir:/mail"}, "record": {"keep": "maildir:/mail"}}
    with pytest.raises(ValidationError, match=r"record\.keep .maildir:/mail. is the Maildir of upstream\.url.*another"):
        Settings.model_validate(values)
    Settings.model_validate(values | {"record": {"keep": "maildir:/kept"}})


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:2525", "127.0.0.1:25"),
        ("127.0.0.1:2525", "127.0.0.2:2525"),
        ("127.0.0.1:2525", "[::1]:2525"),
        ("0.0.0.0:2525", "[::1]:2525"),
        ("0.0.0.0:25", "mx.example.org"),
    ],
)
def test_another_server_may_be_the_upstream(listen: str, upstream: str) -> None:
    settings = Settings.model_validate({"listen": {"address": listen}, "upstream": {"url": f"smtp://{upstream}"}})
    assert str(settings.listen.address) == listen
    assert str(settings.upstream.url).startswith(f"smtp://{upstream}")


@pytest.mark.parametrize(
    ("listen", "http"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525"),
        ("0.0.0.0:2525", "127.0.0.1:2525"),
        ("localhost:2525", "0.0.0.0:2525"),
        ("[::]:2525", "[::]:2525"),
    ],
)
def test_nobody_listens_twice_in_one_place(listen: str, http: str) -> None:
    with pytest.raises(ValueError, match=r"listen\.address \(\S+\) and http\.address \(\S+\) are the same; write"):
        Settings.model_validate({"listen": {"address": listen}, "http": {"address": http}})


@pytest.mark.parametrize(
    ("listen", "http"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:2525", "127.0.0.2:2525"),
        ("[::]:2525", "127.0.0.1:2525"),
        ("127.0.0.1:2525", ""),
    ],
)
def test_two_addresses_that_differ_may_be_listened_on(listen: str, http: str) -> None:
    settings = Settings.model_validate({"listen": {"address": listen}, "http": {"address": http}})
    assert (str(settings.listen.address), str(settings.http.address or "")) == (listen, http)


@pytest.mark.parametrize("name", ["mail.example.com", "a", "[192.0.2.1]", "[IPv6:2001:db8::1]", ""])
def test_a_helo_name_is_a_domain_or_an_address_literal(name: str) -> None:
    assert UpstreamSection(helo_name=name).helo_name == name


@pytest.mark.parametrize("name", ["localhost", "localhost.localdomain", "a b", "a\r\nMAIL", "-a", "[x]", "ä.example"])
def test_a_helo_name_that_servers_refuse_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        UpstreamSection(helo_name=name)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("unix:smtp.sock", 'not an absolute path; write for example "unix:/run/'),
        ("unix:", "not a path; write for example"),
        ("unix:@abstract", "not an absolute path"),
        (f"unix:/{'x' * 107}", "has at most 107 bytes, and this one has 108; write a shorter one"),
        (f"unix:/{'ä' * 54}", "has at most 107 bytes, and this one has 109"),
    ],
)
def test_the_path_of_a_unix_socket_is_checked(address: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate({"listen": {"address": address}})


def test_a_unix_socket_is_written_as_it_was_read() -> None:
    longest = f"unix:/{'x' * 106}"
    for address in (longest, "unix:/run/relay/smtp.sock"):
        given = {"address": address, "socket_mode": "0600", "socket_group": 33}
        listen = Settings.model_validate({"listen": given}).listen
        written = listen.model_dump()
        assert (written["address"], written["socket_mode"], written["socket_group"]) == (address, "600", "33")
        assert listen.socket_mode == 0o600


@pytest.mark.parametrize("mode", [660, 0o660, "66", "06600", "888", "u=rw", ""])
def test_a_file_mode_is_octal_text(mode: object) -> None:
    with pytest.raises(ValidationError, match='write three octal digits in quotes, for example "660"'):
        Settings.model_validate({"listen": {"socket_mode": mode}})


def test_what_writes_a_file_mode_has_one_parameter() -> None:
    # str.format does not: with Python 3.13.5 pydantic refuses its signature, and no settings can be read.
    (serializer,) = (item for item in get_args(FileMode) if isinstance(item, PlainSerializer))
    assert len(inspect.signature(serializer.func).parameters) == 1


def test_no_network_is_open_on_a_unix_socket_alone() -> None:
    listen = {"address": "unix:/s", "networks": ["0.0.0.0/0"]}
    Settings.model_validate({"listen": listen})
    tls = {"tls": {"certificate": "/c.pem"}}
    with pytest.raises(ValidationError, match="an open relay"):
        Settings.model_validate({"listen": {**listen, "tls_address": "0.0.0.0:465"}, **tls})
    Settings.model_validate({"listen": {**listen, "tls_address": "127.0.0.1:465"}, **tls})
