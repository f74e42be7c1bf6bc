"""Every combination of TLS and login that AVideo's settings page allows, with PHPMailer and five clients by others.

A cell is one client with one "SMTP secure" (empty, `tls`, `ssl`), with or without a login, against one configuration of
the relay. The test states for each cell whether the mail arrives, and counts at the upstream.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

import pytest
from parts.certificates import Authority
from parts.peer import ScriptedPeer
from parts.phpmailer import send_as_avideo
from parts.ports import HOST, free_port
from parts.relay_process import RelayProcess
from parts.tools import Ran, curl, msmtp, nodemailer, openssl, swaks

from relay.logins.passwords import hash_password

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

NAME, PASSWORD = "avideo@example.test", "Geheim-1"
SENDER = "avideo@example.test"
AT_A_TIME = 4
_PROTOCOL = re.compile(rb"with ESMTP(S?)(A?) id")
"""RFC 3848."""
CERTIFICATES = ("none", "self_signed", "certificate")
MODES = ("off", "file", "passthrough", "any")
SECURE = ("", "tls", "ssl")


class Cell(NamedTuple):
    client: str
    secure: str
    login: bool


class Ports(NamedTuple):
    smtp: int
    tls: int

    def of(self, secure: str) -> int:
        return self.tls if secure == "ssl" else self.smtp


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority(tmp_path_factory.mktemp("authority")).issue()


def arrives(cell: Cell, certificate: str, mode: str) -> bool:
    """Returns whether the mail of a cell arrives."""
    if cell.secure and certificate == "none":
        return False
    # These clients refuse to send when a login is configured and the server offers none. AVideo sends nothing then.
    needs_offer = cell.client in ("phpmailer", "swaks", "msmtp")
    return not (cell.login and mode == "off" and needs_offer)


async def by_phpmailer(ports: Ports, secure: str, login: bool, to: str) -> bool:
    given = (NAME, PASSWORD) if login else None
    (chunk,) = await send_as_avideo(ports.of(secure), [to], to, "<p>hello</p>", secure=secure, login=given)
    return chunk.ok


async def by_swaks(ports: Ports, secure: str, login: bool, to: str) -> bool:
    tls = {"": [], "tls": ["--tls"], "ssl": ["--tls-on-connect"]}[secure]
    auth = ["--auth", "LOGIN", "--auth-user", NAME, "--auth-password", PASSWORD] if login else []
    mail = ("--from", SENDER, "--to", to, "--header", f"Subject: {to}")
    return (await swaks(ports.of(secure), *mail, *tls, *auth)).status == 0


async def by_curl(ports: Ports, secure: str, login: bool, to: str) -> bool:
    tls = [] if not secure else ["--ssl-reqd", "--insecure"]
    auth = ["--user", f"{NAME}:{PASSWORD}"] if login else []
    mail = ("--mail-from", SENDER, "--mail-rcpt", to)
    scheme = "smtps" if secure == "ssl" else "smtp"
    ran = await curl(ports.of(secure), *mail, *tls, *auth, content=f"Subject: {to}\n\nhello\n", scheme=scheme)
    return ran.status == 0


async def by_msmtp(ports: Ports, secure: str, login: bool, to: str) -> bool:
    tls = [f"--tls={'on' if secure else 'off'}", "--tls-certcheck=off"]
    tls += [f"--tls-starttls={'off' if secure == 'ssl' else 'on'}"] if secure else []
    # msmtp sends a password without TLS only by a method that hides it, unless the method is named.
    auth = ["--auth=plain", f"--user={NAME}", f"--passwordeval=printf %s {PASSWORD}"] if login else ["--auth=off"]
    ran = await msmtp(ports.of(secure), f"--from={SENDER}", *tls, *auth, "--", to, content=f"Subject: {to}\n\nhello\n")
    return ran.status == 0


async def by_nodemailer(ports: Ports, secure: str, login: bool, to: str) -> bool:
    job = {"host": HOST, "port": ports.of(secure), "secure": secure, "from": SENDER, "to": to, "subject": to}
    return (await nodemailer(json.dumps({**job, "login": [NAME, PASSWORD] if login else None}))).status == 0


async def by_openssl(ports: Ports, secure: str, login: bool, to: str) -> bool:
    plain = b64encode(f"\0{NAME}\0{PASSWORD}".encode()).decode()
    commands = ["EHLO me", *([f"AUTH PLAIN {plain}"] if login else [])]
    commands += [f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{to}>", "DATA", f"Subject: {to}", "", "hello", ".", "QUIT"]
    starttls = ["-starttls", "smtp"] if secure == "tls" else []
    ran: Ran = await openssl(ports.of(secure), *starttls, dialog="".join(f"{line}\r\n" for line in commands))
    return "\n354 " in ran.said and "\n221 " in ran.said and "\n535 " not in ran.said


CLIENTS: Mapping[str, Callable[[Ports, str, bool, str], Awaitable[bool]]] = {
    "phpmailer": by_phpmailer,
    "swaks": by_swaks,
    "curl": by_curl,
    "msmtp": by_msmtp,
    "nodemailer": by_nodemailer,
    "openssl": by_openssl,
}


def cells_for(certificate: str, mode: str) -> list[Cell]:
    """Returns the cells of one configuration. To the other clients two modes look alike, and two certificates too."""
    others = certificate != "self_signed" and mode in ("off", "file")
    clients = CLIENTS if others else ["phpmailer"]
    found = [Cell(*each) for each in itertools.product(clients, SECURE, (False, True))]
    return [cell for cell in found if cell.secure or cell.client != "openssl"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CERTIFICATES)
async def test_each_combination(kind: str, mode: str, certificate: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"{NAME}:{hash_password(PASSWORD.encode())}:\n")
    settings: dict[str, object] = {"auth.mode": mode}
    settings |= {"auth.users_file": users} if mode == "file" else {}
    settings |= {
        "none": {},
        "self_signed": {"tls.self_signed": "true"},
        "certificate": {"tls.certificate": certificate},
    }[kind]
    tls_port = free_port()
    settings |= {"listen.tls_address": f"{HOST}:{tls_port}"} if kind != "none" else {}
    async with ScriptedPeer() as upstream:
        upstream.users = {NAME.encode(): PASSWORD.encode()}
        async with RelayProcess(upstream=upstream.url, store="memory:", settings=settings) as relay:
            ports, turns = Ports(relay.port, tls_port), asyncio.Semaphore(AT_A_TIME)

            async def send(cell: Cell) -> tuple[Cell, bool]:
                async with turns:
                    return cell, await CLIENTS[cell.client](ports, cell.secure, cell.login, address(cell))

            found = dict(await asyncio.gather(*(send(cell) for cell in cells_for(kind, mode))))
    assert found == {cell: arrives(cell, kind, mode) for cell in found}
    arrived = {recipient.decode() for mail in upstream.accepted for recipient in mail.recipients}
    assert arrived == {address(cell) for cell, ok in found.items() if ok}
    assert len(upstream.accepted) == len(arrived)
    by_address = {address(cell): cell for cell in found}
    for message in upstream.accepted:
        cell = by_address[message.recipients[0].decode()]
        said = _PROTOCOL.search(message.content)
        assert said
        assert not cell.secure or said[1], f"{cell} went without TLS"
        assert bool(said[2]) == (cell.login and mode != "off"), f"{cell} went with or without a login"


def address(cell: Cell) -> str:
    """Returns the recipient of a cell."""
    return f"{cell.client}-{cell.secure or 'plain'}-{'login' if cell.login else 'open'}@example.test"
