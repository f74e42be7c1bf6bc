"""Who may see the page and use its forms."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from io import BytesIO
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import make_mocked_request
from parts.page_server import PASSWORD, PageServer, page_server

from relay.logins.limits import FIRST_DELAY
from relay.logins.passwords import hash_password
from relay.page.access import Access, Refused
from relay.page.guard import LARGEST_FORM
from relay.page.sessions import LONGEST_PAUSE, LONGEST_SESSION, Sessions
from relay.runtime.executor import Executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOOPBACK = (ip_network("127.0.0.0/8"),)
THROUGH_PROXY = {"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "https"}
PAGES = ("/", "/messages", "/messages/0000000000a1", "/rules", "/settings")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users"


class Transport:
    """The connection of a mocked request."""

    def __init__(self, peer: str) -> None:
        self._found = {"peername": (peer, 4711) if peer else ""}

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return self._found.get(name, default)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def visit(access: Access, peer: str, tls: bool = False, **header: str) -> Any:
    fields = {"Host": "127.0.0.1:9625"} | {name.replace("_", "-"): value for name, value in header.items()}
    transport = Transport(peer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    return access.visitor(make_mocked_request("GET", "/", headers=fields, transport=transport, sslcontext=context))


def token_in(text: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', text)
    assert found, text
    return found[1]


async def log_in(page: PageServer, *, name: str = "ada", password: str = PASSWORD, **options: Any) -> tuple[int, str]:
    _, form = await page.get("/login", **options)
    fields = {"name": name, "password": password, "next": "/settings", "token": token_in(form)}
    return await page.post("/login", fields, **options)


# Where from


def test_the_loopback_address_of_another_host_is_not_that_of_this_machine() -> None:
    access = Access(needs_login=True, proxy_networks=(*LOOPBACK, ip_network("192.0.2.7")))
    for header in ({"X_Forwarded_For": "127.0.0.1"}, {"X_Forwarded_For": "::1"}):
        with pytest.raises(Refused, match="unprotected connection"):
            visit(access, "192.0.2.7", **header)
        visitor = visit(access, "192.0.2.7", **header, X_Forwarded_Proto="https")
        assert (visitor.client, visitor.trusted) == ("192.0.2.7", False)
        assert visit(access, "127.0.0.1", **header).trusted


def test_without_users_the_page_is_for_this_machine_only() -> None:
    access = Access(needs_login=False)
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", ""):
        assert visit(access, peer).trusted
    for tls in (False, True):
        with pytest.raises(Refused, match=r"shown on this machine only.*http\.users_file"):
            visit(access, "192.0.2.1", tls)


def test_other_hosts_need_tls() -> None:
    access = Access(needs_login=True)
    with pytest.raises(Refused, match=r"unprotected connection.*http\.tls = true"):
        visit(access, "192.0.2.1")
    visitor = visit(access, "192.0.2.1", tls=True)
    assert (visitor.client, visitor.encrypted, visitor.trusted) == ("192.0.2.1", True, False)


def test_forwarding_fields_are_read_from_known_proxies_only() -> None:
    access = Access(needs_login=True, proxy_networks=(ip_network("10.0.0.0/8"),))
    visitor = visit(access, "10.0.0.1", X_Forwarded_For="127.0.0.1, 198.51.100.9, 10.0.0.2", X_Forwarded_Proto="https")
    assert (visitor.client, visitor.encrypted, visitor.trusted) == ("198.51.100.9", True, False)
    for peer, fields in (
        ("192.0.2.1", {"X_Forwarded_For": "127.0.0.1", "X_Forwarded_Proto": "https"}),  # not a proxy: no TLS
        ("10.0.0.1", {"X_Forwarded_For": "198.51.100.9", "X_Forwarded_Proto": "http"}),
        ("10.0.0.1", {"X_Forwarded_For": "198.51.100.9"}),
        ("10.0.0.1", {"X_Forwarded_For": "127.0.0.1, x", "X_Forwarded_Proto": "https"}),
        ("10.0.0.1", {}),
    ):
        with pytest.raises(Refused):
            visit(access, peer, **fields)


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Proto"])
def test_a_proxy_on_this_machine_is_not_taken_for_a_local_visitor(name: str) -> None:
    for needs_login in (False, True):
        with pytest.raises(Refused, match=r"through a proxy.*http\.proxy_networks"):
            visit(Access(needs_login), "127.0.0.1", **{name: "x"})


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "[", "xn--a"]
)
async def test_names_of_other_sites_are_refused(host: str) -> None:
    async with page_server(host_names=frozenset({"relay.example.com"})) as page:
        for path in PAGES:
            status, text = await page.get(path, headers={"Host": host})
            assert (status, "http.host_names" in text) == (421, True) or status == 400
        for own in ("localhost:9625", "[::1]:9625", "127.0.0.1", "Relay.Example.com.:9625", "192.0.2.1"):
            assert (await page.get("/", headers={"Host": own}))[0] == 200
        assert (await page.get("/livez", headers={"Host": host}))[0] in {200, 400}


# Sessions


async def test_login_begins_a_session_and_logout_ends_it(users: Path) -> None:
    async with page_server(users) as page:
        for path in PAGES:
            assert await page.get(path) == (303, "")
        assert (await page.get("/settings?x=%2Fy"))[0] == 303
        assert await log_in(page) == (303, "/settings")
        status, text = await page.get("/settings")
        assert (status, "<bdi>ada</bdi>" in text) == (200, True)
        cookie = next(iter(page.client.cookie_jar))
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], len(cookie.value)) == (True, "Strict", "/", 43)
        assert await page.post("/logout", {"token": token_in(text)}) == (303, "/login")
        assert (await page.get("/settings"))[0] == 303
        page.client.cookie_jar.update_cookies({"relay": cookie.value})
        assert (await page.get("/settings"))[0] == 303


async def test_under_tls_the_cookie_is_for_tls_only(users: Path) -> None:
    async with page_server(users, proxy_networks=LOOPBACK) as page:
        options = {"headers": THROUGH_PROXY}
        _, form = await page.get("/login", **options)
        fields = {"name": "ada", "password": PASSWORD, "next": "/", "token": token_in(form)}
        async with page.client.post(page.url + "/login", data=fields, allow_redirects=False, **options) as response:
            header = response.headers["Set-Cookie"]
        assert re.fullmatch(r"__Host-relay=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict; Secure", header)


async def test_wrong_logins_are_refused_delayed_and_counted(users: Path) -> None:
    async with page_server(users, proxy_networks=LOOPBACK) as page:
        began = asyncio.get_running_loop().time()
        for status, text in await asyncio.gather(
            *(
                log_in(
                    page, name=name, password=password, headers=THROUGH_PROXY | {"X-Forwarded-For": f"192.0.2.{number}"}
                )
                for number, (name, password) in enumerate((("ada", "wrong"), ("eve", PASSWORD)))
            )
        ):
            assert (status, "Name or password is wrong" in text, PASSWORD in text) == (403, True, False)
        assert asyncio.get_running_loop().time() - began >= FIRST_DELAY * 0.9
        count = page.metrics.registry.get_sample_value
        assert count("smtp_dedup_page_logins_total", {"outcome": "credentials"}) == 2
        assert count("smtp_dedup_page_logins_total", {"outcome": "accepted"}) == 0


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example", "https://evil.example/", "/login", "", f"/{2000 * 'x'}"]
)
async def test_login_leads_to_no_other_site(path: str, users: Path) -> None:
    async with page_server(users) as page:
        _, form = await page.get("/login")
        fields = {"name": "ada", "password": PASSWORD, "next": path, "token": token_in(form)}
        assert await page.post("/login", fields) == (303, "/")


async def test_a_removed_user_or_a_new_password_ends_the_session(users: Path) -> None:
    for lines in (f"ada:{hash_password(b'another password')}\n", ""):
        async with page_server(users) as page:
            await log_in(page)
            assert (await page.get("/"))[0] == 200
            write(users, lines)
            assert (await page.get("/"))[0] == 303


def test_sessions_are_bounded_in_time_and_number() -> None:
    now = 0.0
    sessions = Sessions(lambda: now, most=2)
    first, second = sessions.begin("ada", "x").id, sessions.begin("ada", "x").id
    assert sessions.find(first)
    third = sessions.begin("ada", "x").id
    assert (bool(sessions.find(first)), sessions.find(second), bool(sessions.find(third))) == (True, None, True)
    now = LONGEST_PAUSE + 1
    assert sessions.find(first) is None
    fourth = sessions.begin("ada", "x").id
    began = now
    while now - began <= LONGEST_SESSION:
        assert sessions.find(fourth)
        now += LONGEST_PAUSE
    assert sessions.find(fourth) is None


async def test_session_cookie_of_nobody_is_no_session(users: Path) -> None:
    async with page_server(users) as page:
        assert (await page.get("/", headers={"Cookie": "relay=; __Host-relay=x"}))[0] == 303


# Forms


async def streamed() -> AsyncIterator[bytes]:
    """A body without a length."""
    yield b"name=ada"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:{port}"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:{port}"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
    ],
)
async def test_forms_of_other_sites_are_refused(header: dict[str, str], accepted: bool, users: Path) -> None:
    async with page_server(users) as page:
        await log_in(page)
        token = token_in((await page.get("/"))[1])
        sent = {name: value.format(port=page.port) for name, value in header.items()}
        assert (await page.post("/logout", {"token": token}, headers=sent))[0] == (303 if accepted else 403)
        assert (await page.get("/"))[0] == (303 if accepted else 200)


async def test_forms_need_the_token_of_their_session(users: Path) -> None:
    async with page_server(users) as page:
        anonymous = token_in((await page.get("/login"))[1])
        await log_in(page)
        old = token_in((await page.get("/"))[1])
        await log_in(page)
        for fields in ({}, {"token": ""}, {"token": "é"}, {"token": anonymous}, {"token": old}):
            status, text = await page.post("/logout", fields)
            assert (status, "out of date" in text) == (403, True)
        assert (await page.get("/"))[0] == 200


async def test_a_form_of_a_session_that_is_over_hears_so(users: Path) -> None:
    async with page_server(users) as page:
        await log_in(page)
        old = token_in((await page.get("/rules"))[1])
        page.client.cookie_jar.clear()
        status, text = await page.post("/rules", {"token": old, "first": "x"})
        assert (status, "You are not logged in, or not any more." in text) == (403, True)


async def test_forms_need_a_session(users: Path) -> None:
    async with page_server(users) as page:
        token = token_in((await page.get("/login"))[1])
        assert (await page.post("/logout", {"token": token}))[0] == 403


async def test_large_forms_are_refused_unread(users: Path) -> None:
    async with page_server(users) as page:
        for body in (BytesIO(bytes(LARGEST_FORM + 1)), streamed()):
            async with page.client.post(page.url + "/login", data=body) as response:
                assert response.status == 413


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="first"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Type: text/a; charset=no\r\n\r\nx\r\n--b--',
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=x\r\nContent-Type:text/a;charset=utf-7\r\n\r\n+2AA-\r\n--b--",
        ),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("application/x-www-form-urlencoded; charset=no", b"x=%ff"),
    ],
)
async def test_forms_that_cannot_be_read_are_refused(content_type: str, body: bytes) -> None:
    async with page_server() as page:
        headers = {"Content-Type": content_type}
        async with page.client.post(page.url + "/rules", data=body, headers=headers) as response:
            assert (response.status, "The form cannot be read" in await response.text()) == (400, True)


async def test_get_changes_nothing(users: Path) -> None:
    async with page_server(users) as page:
        await log_in(page)
        assert (await page.get("/logout"))[0] == 405
        assert (await page.get("/"))[0] == 200


# Header fields and paths


async def test_every_answer_has_the_fields_that_protect_it(users: Path) -> None:
    async with page_server(users) as page:
        for path in ("/login", "/", "/settings", "/static/page.css", "/static/page.js", "/metrics", "/nothing"):
            async with page.client.get(page.url + path, allow_redirects=False) as response:
                header = response.headers
                assert header["Content-Security-Policy"].startswith("default-src 'none'; ")
                assert "unsafe" not in header["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in header["Content-Security-Policy"]
                assert header["X-Content-Type-Options"] == "nosniff"
                assert header["Referrer-Policy"] == "same-origin"
                assert header["Cache-Control"] == ("no-cache" if "static" in path else "no-store")
                assert "Access-Control-Allow-Origin" not in header


async def test_metrics_and_health_have_switches_of_their_own(users: Path) -> None:
    async with page_server(users, open_paths=("/livez",)) as page:
        assert [(await page.get(path))[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 303, 303]
        await log_in(page)
        assert [(await page.get(path))[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]


async def test_static_files_are_not_sent_again() -> None:
    async with page_server() as page, page.client.get(page.url + "/static/page.css") as first:
        assert first.headers["Content-Type"] == "text/css; charset=utf-8"
        assert (await page.get("/static/page.css", headers={"If-None-Match": first.headers["ETag"]}))[0] == 304


async def test_while_the_users_file_hangs_the_page_says_so(users: Path) -> None:
    async with page_server(users) as page:
        await log_in(page)
        assert page.users is not None
        page.users.close()
        page.users._trusted = Executor("hung", 1, 0.01)
        release = threading.Event()
        try:
            with pytest.raises(TimeoutError):
                await page.users._trusted.run(release.wait)
            status, text = await page.get("/")
            assert (status, "could not be read in time" in text) == (503, True)
        finally:
            release.set()
