"""The page behind a real nginx, Apache and Caddy, with the configurations that docs/page.md shows."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from parts.counted_relay import addresses
from parts.logged import lines
from parts.ports import HOST
from parts.shared_relay import SharedRelay
from parts.waiting import LONGEST, until
from parts.web_servers import KINDS, NAME, WebServer, documented_settings

from relay.logins.passwords import hash_password
from relay.page.live import EVERY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from http.cookies import Morsel
    from pathlib import Path

    from parts.certificates import Authority
    from parts.counted_relay import CountedRelay
    from parts.peer import ScriptedPeer

Reader: TypeAlias = aiohttp.StreamReader | asyncio.StreamReader

BROWSER = "127.0.0.7"
"""The address of the browser. The web servers connect to the relay from 127.0.0.1."""
PASSWORD = "correct horse battery staple"
FORGED = {
    "X-Forwarded-For": "127.0.0.1, 198.51.100.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": "198.51.100.9",
    "Forwarded": "for=198.51.100.9;proto=http;host=evil.example",
}
LARGEST_MESSAGE = "Subject: long\n\n" + ("x" * 70 + "\n") * 14_500
"""With its line ends as CRLF nearly 1 MiB."""
LONGEST_DELAY = 3.0
"""Seconds. Three times what a reader would notice."""


@pytest.fixture(scope="module")
def shared_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRelay]:
    settings = documented_settings()
    settings["users_file"] = users = tmp_path_factory.mktemp("users") / "users"
    users.write_text(f"ada:{hash_password(PASSWORD.encode())}\n")
    values = {f"http.{name}": ",".join(value) if isinstance(value, list) else value for name, value in settings.items()}
    with SharedRelay(values | {"log.format": "json"}) as relay:
        yield relay


@pytest.fixture(scope="module")
def servers(
    shared_relay: SharedRelay, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, WebServer]]:
    certificate = authority.issue(NAME)
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(
                WebServer(kind, tmp_path_factory.mktemp(kind), certificate, shared_relay.http_port)
            )
            for kind in KINDS
        }


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Mapping[str, WebServer]) -> WebServer:
    return servers[request.param]


@pytest.fixture
async def peer(shared_relay: SharedRelay) -> AsyncIterator[ScriptedPeer]:
    async with shared_relay.peer() as upstream:
        yield upstream


class Loopback(AbstractResolver):
    """Finds every name on this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=HOST, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def browser(url: str, authority: Authority, address: str = BROWSER) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=authority.trust(), resolver=Loopback(), local_addr=(address, 0))
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(url, connector=connector, cookie_jar=jar) as client:
        yield client


@pytest.fixture
async def visitor(server: WebServer, authority: Authority) -> AsyncIterator[aiohttp.ClientSession]:
    async with browser(server.url, authority) as client:
        yield client


def token_in(text: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', text)
    assert found, text
    return found[1]


async def log_in(client: aiohttp.ClientSession, password: str = PASSWORD, **options: Any) -> tuple[int, str]:
    """Logs in by the form, follows the redirects, and returns the status and the text of the page."""
    async with client.get("/", **options) as response:
        assert (response.status, response.url.path) == (200, "/login"), await response.text()
        form = {"name": "ada", "password": password, "next": "/", "token": token_in(await response.text())}
    async with client.post("/login", data=form, **options) as response:
        assert response.url.origin() == client._base_url
        return response.status, await response.text()


def session_of(client: aiohttp.ClientSession) -> Morsel[str]:
    """Returns the cookie of the session."""
    [cookie] = client.cookie_jar
    return cookie


class Curl:
    """A client that speaks HTTP/2 too, as browsers do, with the session of another one."""

    def __init__(
        self, server: WebServer, client: aiohttp.ClientSession, authority: Authority, version: str = "--http2"
    ) -> None:
        cookie = session_of(client)
        self._url = server.url
        self._arguments = (
            *(version, "--silent", "--show-error", "--no-buffer", "--compressed", "--interface", BROWSER),
            *("--cacert", str(authority.certificate), "--resolve", f"{NAME}:{server.port}:{HOST}"),
            *("--header", f"Cookie: {cookie.key}={cookie.value}"),
        )

    async def ask(self, path: str, *arguments: str) -> tuple[str, str]:
        """Returns the version and the status, and the text."""
        async with self.open(path, "--write-out", "\n%{http_version} %{http_code}", *arguments) as stream:
            text, _, result = (await stream.read()).decode().rpartition("\n")
        return result, text

    @asynccontextmanager
    async def open(self, path: str, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
        process = await asyncio.create_subprocess_exec(
            *("curl", *self._arguments, *arguments, self._url + path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        try:
            yield process.stdout
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


# Logins and forms


async def test_a_user_logs_in_and_out(visitor: aiohttp.ClientSession) -> None:
    status, text = await log_in(visitor)
    assert (status, "<bdi>ada</bdi>" in text) == (200, True)
    cookie = session_of(visitor)
    found = cookie.key, cookie["secure"], cookie["httponly"], cookie["samesite"]
    assert found == ("__Host-relay", True, True, "Strict")
    async with visitor.post("/logout", data={"token": token_in(text)}) as response:
        assert (response.status, response.url.path) == (200, "/login")
    assert len(visitor.cookie_jar) == 0


async def test_a_long_question_leads_to_the_login_form(visitor: aiohttp.ClientSession) -> None:
    """Web servers take response header fields of a few KiB only. Its `Location` would be longer."""
    async with visitor.get("/messages", params={"q": "<" * 1000}) as response:
        assert (response.status, response.url.path) == (200, "/login")


async def test_forms_of_other_sites_are_refused(server: WebServer, visitor: aiohttp.ClientSession) -> None:
    form = {"token": token_in((await log_in(visitor))[1])}
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for header in ({"Origin": "https://evil.example"}, {"Origin": f"https://{NAME}"}, foreign):
        async with visitor.post("/logout", data=form, headers=header) as response:
            assert (response.status, "The form came from another site" in await response.text()) == (403, True)
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    async with visitor.post("/logout", data=form, headers=own) as response:
        assert (response.status, response.url.path) == (200, "/login")


# Who asks, and for which name


async def test_names_of_other_sites_are_refused(server: WebServer, visitor: aiohttp.ClientSession) -> None:
    """Caddy itself answers names that are not in its configuration, with an empty text."""
    async with visitor.get("/login", headers={"Host": "evil.example"}) as response:
        text = await response.text()
    assert (response.status, "http.host_names" in text) == ((200, False) if server.kind == "Caddy" else (421, True))
    assert "password" not in text


async def test_visitors_cannot_pretend_to_be_others(
    shared_relay: SharedRelay, servers: Mapping[str, WebServer], authority: Authority
) -> None:
    """Also not by asking the web server to drop the fields that it adds (RFC 9110, section 7.6.1)."""
    dropping = FORGED | {"Connection": f"close, {', '.join(FORGED)}"}

    async def fail(server: WebServer, address: str, header: Mapping[str, str]) -> None:
        async with browser(server.url, authority, address) as client:
            status, text = await log_in(client, "wrong", headers=header)
            assert (status, "Name or password is wrong" in text, "evil" in text) == (403, True, False)

    tries = itertools.product(servers.values(), (FORGED, dropping))
    by_address = {f"127.0.0.{number}": each for number, each in enumerate(tries, start=10)}
    await asyncio.gather(*(fail(server, address, header) for address, (server, header) in by_address.items()))

    def refused() -> list[str]:
        return [line["peer"] for line in lines(shared_relay) if line["event"] == "login to the page refused"]

    await until(lambda: len(refused()) == len(by_address), "all logins in the log")
    assert sorted(refused()) == sorted(by_address)


async def test_a_session_without_tls_is_no_session_with_tls(server: WebServer, authority: Authority) -> None:
    async with browser(f"http://{NAME}:{server.plain_port}", authority) as client:
        await log_in(client, headers={"X-Forwarded-Proto": "https", "Forwarded": "proto=https"})
        cookie = session_of(client)
        assert (cookie.key, cookie["secure"]) == ("relay", "")


async def test_metrics_and_health_are_hidden(
    server: WebServer, visitor: aiohttp.ClientSession, authority: Authority
) -> None:
    """Also if the path is written in another way, and to users."""
    await log_in(visitor)
    curl = Curl(server, visitor, authority)
    for path in (
        "/metrics",
        "/livez",
        "/readyz",
        "/%6detrics",
        "//metrics",
        "/x/../metrics",
        "/metrics?x",
        "/metrics/",
    ):
        result, text = await curl.ask(path, "--path-as-is")
        assert (path, result, "smtp_dedup" in text) == (path, "2 404", False)


# What web servers do with answers


async def test_pages_and_large_forms_work_with_http_2(
    server: WebServer, visitor: aiohttp.ClientSession, authority: Authority, tmp_path: Path
) -> None:
    await log_in(visitor)
    curl = Curl(server, visitor, authority)
    result, text = await curl.ask("/rules?x=%2F")
    assert (result, "<bdi>ada</bdi>" in text) == ("2 200", True)
    file = tmp_path / "message"
    file.write_text(LARGEST_MESSAGE)
    form = ("--form", f"token={token_in(text)}", "--form", f"first=<{file}", "--form", f"second=<{file}")
    result, text = await curl.ask("/rules", *form, "--header", f"Origin: {server.url}")
    assert (result, "<h3>Equal</h3>" in text) == ("2 200", True)


async def test_compressed_files_are_not_sent_again(visitor: aiohttp.ClientSession) -> None:
    async with visitor.get("/static/page.css") as response:
        assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
    async with visitor.get("/static/page.css", headers={"If-None-Match": response.headers["ETag"]}) as response:
        assert response.status == 304


async def test_events_arrive_at_once(
    relay: CountedRelay, servers: Mapping[str, WebServer], authority: Authority
) -> None:
    """A new message is seen behind every web server, compressed or not, as soon as without one."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(browser(f"http://{HOST}:{relay.process.http_port}", authority, HOST))
        await log_in(direct)
        readers: dict[str, Reader] = {"direct": (await stack.enter_async_context(direct.get("/events"))).content}
        for kind, server in servers.items():
            client = await stack.enter_async_context(browser(server.url, authority))
            await log_in(client)
            for version in ("--http1.1", "--http2"):
                curl = Curl(server, client, authority, version)
                readers[f"{kind} {version}"] = await stack.enter_async_context(curl.open("/events"))
        await asyncio.gather(*(until_forwarded(reader, 0) for reader in readers.values()))
        assert (await relay.send(addresses(1))).ok
        found = await asyncio.gather(*(until_forwarded(reader, 1) for reader in readers.values()))
    late = {name: at - found[0] for name, at in zip(readers, found, strict=True)}
    # The streams did not begin at the same moment, and each looks at the state every so many seconds.
    assert max(late.values()) < EVERY + LONGEST_DELAY, late


async def until_forwarded(stream: Reader, count: int) -> float:
    """Reads events until so many recipients were forwarded in the last hour and day. Returns the time."""
    async with asyncio.timeout(LONGEST):
        while line := await stream.readline():
            if line.startswith(b"data: "):
                text = re.sub(r"<[^>]+>", " ", json.loads(line.removeprefix(b"data: "))["html"])
                if re.search(rf"forwarded\s+{count}\s+{count}\s", text):
                    return time.monotonic()
    raise AssertionError("the stream has ended")


# The end of the relay


async def test_the_page_is_there_again_after_a_restart_of_the_relay(
    shared_relay: SharedRelay, servers: Mapping[str, WebServer], authority: Authority
) -> None:
    async with AsyncExitStack() as stack:
        clients = {
            kind: await stack.enter_async_context(browser(server.url, authority)) for kind, server in servers.items()
        }

        async def ask(client: aiohttp.ClientSession) -> int:
            async with client.get("/login") as response:
                await response.read()
                return response.status

        async def ask_all() -> None:
            """Asks each on several connections, so that web servers keep some to the relay."""
            for client in clients.values():
                assert await asyncio.gather(*(ask(client) for _ in range(3))) == [200, 200, 200]
                assert (await log_in(client))[0] == 200
                client.cookie_jar.clear()

        await ask_all()
        shared_relay.end()
        for kind, client in clients.items():
            assert await ask(client) == (503 if kind == "Apache" else 502)
        shared_relay.launch()
        await ask_all()
