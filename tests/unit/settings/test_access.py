"""Who may send, and with which passwords the relay logs in: settings that are refused, and those that are not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from relay.core.errors import SettingsError
from relay.service.build_upstream import build_target
from relay.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

EVERYWHERE = "0.0.0.0:2525"


def settings(**values: Any) -> Settings:
    tree: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition("__")
        tree.setdefault(section, {})[name] = value
    return Settings.model_validate(tree)


@pytest.mark.parametrize("mode", ["off", "file", "passthrough"])
@pytest.mark.parametrize(
    "networks", [["0.0.0.0/0"], ["::/0"], ["0.0.0.0/1", "128.0.0.0/1"], ["10.0.0.0/7"], ["2000::/3"]]
)
@pytest.mark.parametrize("address", [EVERYWHERE, "[::]:2525", "198.51.100.1:25", "mx.example.org:25"])
def test_networks_of_everybody_are_refused_on_a_public_address(mode: str, networks: list[str], address: str) -> None:
    auth = {"auth__mode": mode, "auth__users_file": "/users"}
    with pytest.raises(
        ValidationError, match=r"listen\.networks holds .*\(an open relay\); name your own networks only"
    ):
        settings(listen__address=address, listen__networks=networks, **auth)
    for loopback in ("127.0.0.1:2525", "[::1]:2525", "localhost:2525"):
        settings(listen__address=loopback, listen__networks=networks, **auth)


def test_networks_of_everybody_are_refused_behind_a_balancer_on_this_machine() -> None:
    """The addresses in its headers are those of the whole Internet."""
    behind = {"listen__address": "127.0.0.1:2525", "listen__proxy_networks": ["127.0.0.2/32"]}
    with pytest.raises(
        ValidationError, match=r"listen\.networks holds 0\.0\.0\.0/0 .*2525 behind a load balancer: every"
    ):
        settings(**behind, listen__networks=["0.0.0.0/0"])
    with pytest.raises(ValidationError, match=r'auth\.mode = "any" accepts every password'):
        settings(**behind, listen__networks=["198.51.100.0/24"], auth__mode="any")
    settings(**behind, listen__networks=["198.51.100.0/24"])
    settings(**{**behind, "listen__address": "unix:/s"}, listen__networks=["0.0.0.0/0"])


@pytest.mark.parametrize("networks", [["0.0.0.0/0"], ["10.0.0.0/8", "::/0"]])
def test_not_everybody_is_a_balancer(networks: list[str]) -> None:
    with pytest.raises(
        ValidationError, match=r"listen\.proxy_networks holds .* name the addresses of your load balancers"
    ):
        settings(listen__proxy_networks=networks)
    settings(listen__address=EVERYWHERE, listen__proxy_networks=["10.0.0.0/8", "198.51.100.7/32"])


@pytest.mark.parametrize(
    "networks", [["10.0.0.0/8", "172.16.0.0/12", "fc00::/7", "fe80::/10"], ["17.0.0.0/8"], ["2001:db8::/32"], []]
)
def test_networks_of_an_organisation_are_allowed(networks: list[str]) -> None:
    settings(listen__address=EVERYWHERE, listen__networks=networks)


def test_any_login_is_accepted_from_private_networks_only() -> None:
    with pytest.raises(ValidationError, match=r'auth\.mode = "any" accepts every password, .* 198\.51\.100\.0/24'):
        settings(listen__address=EVERYWHERE, listen__networks=["127.0.0.0/8", "198.51.100.0/24"], auth__mode="any")
    settings(listen__address=EVERYWHERE, listen__networks=["127.0.0.0/8", "192.168.0.0/16"], auth__mode="any")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"auth__mode": "file"}, r'auth\.mode is "file", but auth\.users_file is missing'),
        ({"auth__mode": "passthrough", "upstream__url": "maildir:/mail"}, "needs a mail server, and upstream.url is"),
        ({"upstream__token_file": "/t", "upstream__token_command": ["x"]}, "are both set; remove one of them"),
        ({"upstream__token_command": "say 'x"}, "a quote is not closed"),
        ({"upstream__token_command": [3]}, "each word is text"),
        (
            {"upstream__fallback_urls": ["smtp://a", "smtp://b"], "upstream__fallback_password_files": ["/p"]},
            r"has 1 files, and upstream\.fallback_urls has 2 URLs; write one file for each URL",
        ),
        ({"upstream__url": "smtps://u@h"}, "names a user, but there is no password"),
        (
            {
                "upstream__url": "smtps://u@h",
                "upstream__token_file": "/t",
                "upstream__fallback_urls": ["smtps://u@i"],
            },
            "names a user, but there is no password",
        ),
    ],
)
def test_logins_that_cannot_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**values)


@pytest.mark.parametrize(
    "command", ['["token", "me @ home"]', ["token", "me @ home"], "token 'me @ home'", 'token "me @ home"']
)
def test_a_command_is_a_list_or_a_line(command: object) -> None:
    assert settings(upstream__token_command=command).upstream.token_command == ("token", "me @ home")


def test_each_upstream_has_its_password_or_that_of_all(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("own\n")
    found = settings(
        upstream__url="smtps://a@h",
        upstream__token_command="print-token me",
        upstream__fallback_urls=["smtps://b@i", "smtps://c@j", "smtp://k"],
        upstream__fallback_password_files=[str(file), "", ""],
        upstream__password="shared",
    )

    async def targets() -> list[Any]:
        return [build_target(url, found, "shared") for url in found.upstream.smtp_urls]

    first, *others = asyncio.run(targets())
    assert first.token is not None
    assert [(target.user, target.password, target.token) for target in others] == [
        ("b", "own", None),
        ("c", "shared", None),
        ("", "", None),
    ]
    assert "own" not in repr(others)
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"upstream\.fallback_password_files .*its first line is empty"):
        asyncio.run(targets())


def test_a_token_needs_no_password() -> None:
    assert settings(upstream__url="smtps://a@h", upstream__token_file="/t").upstream.uses_token
