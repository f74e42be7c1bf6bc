"""The page of a whole relay, as the service builds it."""

from __future__ import annotations

import re
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from parts.page_server import PASSWORD

from relay.core.errors import SettingsError
from relay.logins.passwords import hash_password
from relay.service import Service
from relay.settings import Loaded, Settings
from relay.settings.sources import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from parts.certificates import Authority


def settings(tls: dict[str, str] | None = None, /, **http: Any) -> Settings:
    return Settings.model_validate(
        {
            "listen": {"address": "127.0.0.1:0"},
            "store": {"url": "memory:"},
            "http": {"address": "127.0.0.1:0"} | http,
            "upstream": {"url": "smtp://127.0.0.1:1"},
            "tls": tls or {},
        }
    )


@asynccontextmanager
async def running(chosen: Settings) -> AsyncIterator[Service]:
    service = Service(Loaded(chosen))
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def test_each_page_of_a_relay_answers() -> None:
    async with running(settings()) as service, aiohttp.ClientSession(f"http://{service.http_address}") as client:
        _, _, port = service.http_address.partition(":")
        for path in ("/", "/settings"):
            async with client.get(path) as response:
                assert (response.status, response.content_type) == (200, "text/html")
                text = await response.text()
        assert f"127.0.0.1:{port}" not in text  # the setting is port 0
        assert "smtp://127.0.0.1:1" in text


async def test_with_tls_a_user_logs_in_over_https(authority: Authority, users: Path) -> None:
    chosen = settings({"certificate": str(authority.issue())}, tls=True, users_file=str(users))
    context = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority.certificate))
    async with (
        running(chosen) as service,
        aiohttp.ClientSession(
            f"https://{service.http_address}", connector=context, cookie_jar=aiohttp.CookieJar(unsafe=True)
        ) as client,
    ):
        async with client.get("/") as response:
            token = re.findall(r'name="token" value="(\w+)"', await response.text())[0]
        form = {"name": "ada", "password": PASSWORD, "next": "/settings", "token": token}
        async with client.post("/login", data=form) as response:
            assert (response.status, response.url.path) == (200, "/settings")
        async with client.get("/livez") as response:
            assert await response.text() == "ok\n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"ada:{hash_password(PASSWORD.encode())}\n")
    return file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"http.tls": "true"}, "http.tls needs tls.certificate, which is missing"),
        ({"http.proxy_networks": "10.0.0.0/8"}, "http.proxy_networks needs http.users_file"),
        ({"http.proxy_networks": "0.0.0.0/0", "http.users_file": "/x"}, "http.proxy_networks holds 0.0.0.0/0"),
        ({"http.host_names": "https://relay.example.com/"}, "write it without scheme and port"),
        ({"http.open_paths": "/"}, "is none of /metrics, /livez, /readyz"),
    ],
)
def test_wrong_settings_name_the_remedy(flags: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load(None, flags, {})


def test_users_who_cannot_log_in_from_elsewhere_get_a_warning() -> None:
    flags = {"http.address": "0.0.0.0:9625", "http.users_file": "/x"}
    warned = "http.users_file: nobody can log in from other hosts"
    assert any(each.startswith(warned) for each in load(None, flags, {}).warnings)
    for more in ({"http.address": "127.0.0.1:9625"}, {"http.proxy_networks": "10.0.0.1/32"}):
        assert not any(each.startswith(warned) for each in load(None, flags | more, {}).warnings)


async def test_a_missing_users_file_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"http\.users_file .*: No such file or directory; write it with relay user"
    ):
        Service(Loaded(settings(users_file=str(tmp_path / "none"))))
