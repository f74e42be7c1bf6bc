"""Durations, sizes, numbers, switches, addresses, networks and paths."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.settings.addresses import HostPort, parse_http_address, parse_networks, parse_path, parse_path_or_none
from relay.settings.units import format_duration, format_size, parse_count, parse_duration, parse_size, parse_switch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h", 3600),
        ("2d", 172800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (" 10 m ", 600),
        (0, 0),
        ("0", 0),
        (0.0, 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_given_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("600", '"600" has no unit; write "600s" or "10m"'),
        (600, '"600" has no unit; write "600s" or "10m"'),
        ("7", '"7" has no unit; write "7s"'),
        ("10 apples", 'write for example "10m"'),
        ("-5s", 'negative; write "5s"'),
        ("", 'write for example "10m"'),
        (True, 'write for example "10m"'),
        ([], 'write for example "10m"'),
        ("٣s", 'write for example "10m"'),
        ("inf s", 'write for example "10m"'),
        ("9999d", 'write "3650d" or less'),
        ("0.1ms", 'write whole milliseconds, for example "500ms"'),
    ],
)
def test_a_wrong_duration_is_told_its_mend(text: object, mend: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_duration(text)
    assert str(error.value).endswith(mend)


@given(st.integers(0, 3650 * 86400 * 1000))
def test_a_duration_survives_being_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (600, "10m"), (90, "90s"), (0.5, "500ms"), (86400, "1d"), (5.25, "5250ms"), (1 / 3, "333ms")],
)
def test_a_duration_is_written_in_its_largest_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("25MiB", 26214400),
        ("10MB", 10_000_000),
        ("1024", 1024),
        (1024, 1024),
        ("8kB", 8000),
        ("8 KiB", 8192),
        ("1gib", 2**30),
        ("7B", 7),
    ],
)
def test_a_size_is_given_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["big", "25M", "-1", "1.5MB", "", True, 10.0])
def test_a_wrong_size_is_told_its_mend(text: object) -> None:
    with pytest.raises(ValueError, match='not a size; write for example "25MiB"'):
        parse_size(text)


@given(st.integers(0, 10**14))
def test_a_size_survives_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_size_is_written_in_its_largest_unit() -> None:
    assert [format_size(size) for size in (0, 1023, 50 * 2**20, 10**7)] == ["0", "1023", "50MiB", "10MB"]


@pytest.mark.parametrize("value", [0, "0", -1, "many", True, 1.5, ""])
def test_a_count_is_a_whole_number_above_zero(value: object) -> None:
    assert parse_count("20") == parse_count(20) == 20
    with pytest.raises(ValueError, match="not a whole number above 0; write for example 20"):
        parse_count(value)


def test_a_switch_has_the_usual_names() -> None:
    assert all(parse_switch(value) is True for value in (True, "true", "Yes", "on", "1"))
    assert all(parse_switch(value) is False for value in (False, "false", "no", "OFF", "0"))
    with pytest.raises(ValueError, match="write true or false"):
        parse_switch("maybe")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:2525", "127.0.0.1", 2525),
        ("[::1]:0", "::1", 0),
        ("mail.example.com:25", "mail.example.com", 25),
        ("my_service:25", "my_service", 25),
    ],
)
def test_host_and_port_survive_being_written(text: str, host: str, port: int) -> None:
    address = HostPort.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, text)
    assert HostPort.parse(address) == address


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("127.0.0.1", "the port is missing; write HOST:PORT"),
        (2525, "the port is missing; write HOST:PORT"),
        ("127.0.0.1:", "not HOST:PORT; write for example"),
        ("127.0.0.1:smtp", "not HOST:PORT; write for example"),
        (":2525", 'the host is missing; .* "0.0.0.0" or "\\[::\\]" where all'),
        ("*:2525", 'the host is missing; .* "0.0.0.0" or "\\[::\\]" where all'),
        ("::1:2525", 'brackets; write for example "\\[::1\\]:2525"'),
        ("[127.0.0.1]:25", "not an IPv6 address between the brackets"),
        ("300.0.0.1:25", "not a host name or address"),
        ("a b:25", "not a host name or address"),
        ("host:65536", "write one from 0 to 65535"),
        ("", "the port is missing"),
    ],
)
def test_a_wrong_address_is_told_its_mend(text: object, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        HostPort.parse(text)


def test_empty_address_and_path_mean_none() -> None:
    assert parse_http_address("") is parse_path_or_none("") is None
    assert parse_http_address("h:1") == HostPort("h", 1)
    assert parse_path_or_none("/a") == Path("/a")


def test_loopback_is_known() -> None:
    near, far = ("127.9.9.9:1", "[::1]:1", "localhost:1"), ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "mail.example:1")
    assert [HostPort.parse(text).loopback for text in near + far] == [True] * len(near) + [False] * len(far)


@pytest.mark.parametrize(
    "value",
    [["10.0.0.0/8", "::1/128"], '["10.0.0.0/8", "::1/128"]', "10.0.0.0/8, ::1/128", "10.0.0.0/8 ::1"],
)
def test_networks_are_read_from_lists_and_text(value: object) -> None:
    assert parse_networks(value) == (ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (["10.1.2.3/8"], '"10.1.2.3/8" is a host inside a network; write "10.0.0.0/8"'),
        ("lan", '"lan" is not a network; write for example "10.0.0.0/8"'),
        ([8], '"8" is not a network; write for example'),
        ("[10.0.0.0/8]", "not a list; write for example"),
        (8, "not a list; write for example"),
    ],
)
def test_wrong_networks_are_told_their_mend(value: object, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        parse_networks(value)


def test_a_single_host_is_a_network() -> None:
    assert parse_networks(["192.0.2.1"]) == (ip_network("192.0.2.1/32"),)


@pytest.mark.parametrize(
    ("text", "mend"), [("~/x", "write the whole path"), ("a\nb", "not a path"), ("", "not a path")]
)
def test_a_wrong_path_is_told_its_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        parse_path(text)
