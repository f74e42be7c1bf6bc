"""Clients use TLS and log in: certificates and users are exchanged, handshakes stall, and no login can be verified."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import ssl
from typing import TYPE_CHECKING

from parts.certificates import EC_KEY, RSA_KEY
from parts.client import GONE
from parts.waiting import until

from faults.clients import connect
from faults.rest import check_replies
from faults.run import PEOPLE
from faults.scenario import scenario
from faults.tls import Security, certificate_in
from relay.logins.users_file import User, change_users

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parts.client import RawClient

    from faults.run import Run

GROUP = "TLS and logins of clients fail"
ENCRYPTED = (Security.STARTTLS, Security.IMPLICIT)
STALLED = 200
"""Clients that stall in their handshakes."""
LEAVE = 50
"""So many of them leave by themselves."""
ENDED_WITHIN = 90.0
"""Seconds in which the relay ends a handshake that stalls: three times its limit."""
LONGEST = 5.0
"""Seconds that a message may take while others stall."""
AWAY = (2.0, 25.0)
"""Seconds for which the authentication service is away, in turn: less and more than `upstream.patience`."""
PASSWORD = b"s3cret"
HASH = "$argon2id$v=19$m=19456,t=2,p=1$edIChiCUsZT0k9avQhV0rQ$Bdaeoe266/wM6F+bwXq1jLH+u7zj6AbDDtBp3cYF/kM"
"""The hash of the password."""
NAMES = [f"tube{number}" for number in range(1, 51)]


def _tls(name: str, **rest: object) -> Callable[..., object]:
    return scenario(name, **{"group": GROUP, "tls": True, **rest})


@_tls(
    "the certificate is exchanged under load, and now and then the new one cannot be used",
    hears="250; new connections see the new certificate, and the old one while the new one cannot be used",
    sees="`settings reloaded`; `settings not reloaded, those before stay in force`",
)
async def exchanged(run: Run) -> None:
    kinds = itertools.cycle([EC_KEY, RSA_KEY, RSA_KEY, EC_KEY])
    spoil = itertools.cycle([_garbage, _half, _wrong_key, _missing])
    points = list(run.points(run.messages // 100 + 3))
    async with run.load(copies=2, repeats=1):
        for point in points:
            await run.reached(point)
            older = [await _greeted(run, security) for security in Security]
            in_handshake = await _greeted(run, Security.NONE)
            await in_handshake.command(b"EHLO client.example.test")
            await in_handshake.command(b"STARTTLS")
            new = await asyncio.to_thread(run.tls.issue, next(kinds))
            run.tls.replace(new.read_bytes())
            await _hang_up_signal(run, "settings reloaded")
            await _see_certificate(run, new)
            await in_handshake.handshake(run.tls.trust)
            for client in (*older, in_handshake):
                attempt = await run.clients.attempt(run.next_message(), PEOPLE[:1], 0, opened=client)
                if not attempt.promised:
                    run.complain(f"a session that was open at the exchange heard {attempt.code} {attempt.text}")
            await asyncio.to_thread(next(spoil), run)
            await _hang_up_signal(run, "settings not reloaded")
            await _see_certificate(run, new)
    run.note(f"{len(points)} certificates of both kinds of keys, and as many files that were none")
    check_replies(run, {"250", "250 duplicate"})


async def _greeted(run: Run, security: Security) -> RawClient:
    """Returns a client that has connected in this way and was greeted."""
    client = await run.clients.connect(0, security)
    await run.clients.greet(client, security)
    return client


async def _hang_up_signal(run: Run, event: str) -> None:
    """Sends SIGHUP and waits for what the relay logs about it."""
    relay = run.relays[0]
    before = relay.stderr().count(event)
    os.kill(relay.pid, signal.SIGHUP)
    await until(lambda: relay.stderr().count(event) > before, f"a log line: {event}")


async def _see_certificate(run: Run, file: Path) -> None:
    """Checks that new connections see the certificate in the file."""
    expected = certificate_in(file)
    for security in ENCRYPTED:
        async with await _greeted(run, security) as client:
            if client.server_certificate != expected:
                run.complain(f"a client with {security.name} does not see the certificate of {file.name}")


def _garbage(run: Run) -> None:
    run.tls.replace(os.urandom(2000))


def _half(run: Run) -> None:
    content = run.tls.issue().read_bytes()
    run.tls.replace(content[: len(content) // 2])


def _wrong_key(run: Run) -> None:
    key, _, _ = run.tls.issue().read_bytes().partition(b"-----BEGIN CERT")
    _, head, certificate = run.tls.issue().read_bytes().partition(b"-----BEGIN CERT")
    run.tls.replace(key + head + certificate)


def _missing(run: Run) -> None:
    run.tls.file.unlink()


@_tls(
    "200 clients stall in their TLS handshakes",
    hears="250, no later than usual; those that stall lose their connections after 30 s",
    sees='`sessions_refused{reason="handshake"}`',
    alone=True,
)
async def stalled(run: Run) -> None:
    stalled = [await _stall(run, number) for number in range(STALLED)]
    async with run.load(copies=2, repeats=1):
        await run.reached(run.messages // 2)
        for client in stalled[:LEAVE]:
            await client.reset()
    ends = await asyncio.gather(*(client.read_reply(seconds=ENDED_WITHIN) for client in stalled[LEAVE:]))
    if any(end != GONE for end in ends):
        run.complain(f"clients that stalled heard {set(ends)}")
    for client in stalled[LEAVE:]:
        await client.close()
    counted = (await run.relays[0].metrics()).value("smtp_dedup_sessions_refused_total", reason="handshake")
    run.note(f"{counted:g} handshakes failed")
    if counted < STALLED - LEAVE:
        run.complain(f"only {counted:g} handshakes are counted as failed")
    if run.clients.slowest > LONGEST:
        run.complain(f"a client waited {run.clients.slowest:.1f} s")
    check_replies(run, {"250", "250 duplicate"})


async def _stall(run: Run, number: int) -> RawClient:
    """Returns a client that sends nothing, or half a ClientHello, at one of the places where TLS begins."""
    address = f"127.0.1.{number % 50 + 1}"
    if number % 2:
        client = await connect(run.tls.ports[0], address)
    else:
        client = await connect(run.relays[0].port, address)
        await client.read_reply()
        await client.command(b"EHLO client.example.test")
        await client.command(b"STARTTLS")
    if number % 4 > 1:
        hello = _client_hello()
        await client.send_raw(hello[: len(hello) // 2])
    return client


def _client_hello() -> bytes:
    """Returns the first bytes that a TLS client sends."""
    out = ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake without a server")


@_tls(
    "the upstream's authentication service is away for a while (auth.mode = passthrough)",
    hears="250: the relay logs in again; past `upstream.patience` 454 4.7.0 or 451 4.4.1, and a retry hears 250",
    sees='`logins_total{outcome="unavailable"}`; `upstream is down`, because Postfix drops new connections',
    upstream="postfix with logins",
    settings={"auth.mode": "passthrough", "upstream.ca_file": "{folder}/tls/ca.pem"},
)
async def no_auth_service(run: Run) -> None:
    # More users than connections to the upstream: logins go on all the time.
    run.auth_service.users.update(dict.fromkeys(NAMES, PASSWORD.decode()))
    run.clients.logins = [(name.encode(), PASSWORD) for name in NAMES]
    async with run.load(copies=2, repeats=1):
        for point, seconds in zip(run.points(run.messages // 200 + 2), itertools.cycle(AWAY), strict=False):
            await run.reached(point)
            await asyncio.to_thread(run.auth_service.stop)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(run.auth_service.start)
    refused = (await run.relays[0].metrics()).value("smtp_dedup_logins_total", outcome="unavailable")
    run.note(f"{len(run.auth_service.attempts):,} logins at the service; {refused:,.0f} could not be verified")
    if not refused:
        run.complain("no login failed although the service was away for longer than `upstream.patience`")
    if any(not right for _, right in run.auth_service.attempts):
        run.complain("the service was asked about a wrong password")
    check_replies(run, {"250", "250 duplicate", "454 4.7.0", "451 4.4.1"})


@_tls(
    "the users file is replaced under load, and now and then cannot be read (auth.mode = file)",
    hears="250; a new user 235, a removed one 535 5.7.8; the others 235, also while the file cannot be read",
    sees="`users file read again`; an error that names the line, and that the users before are kept",
    settings={"auth.mode": "file", "auth.users_file": "{folder}/users"},
    files={"users": "".join(f"{name}:{HASH}\n" for name in NAMES)},
    messages=300,
)
async def users_replaced(run: Run) -> None:
    run.clients.logins = [(name.encode(), PASSWORD) for name in NAMES]
    file = run.folder / "users"
    spoil = itertools.cycle([b"tube1:not a hash\n", b"\xff\xfe\n", None])
    points = list(run.points(run.messages // 50 + 3))
    async with run.load(copies=2, repeats=1):
        for number, point in enumerate(points):
            await run.reached(point)
            user = User(f"new{number}", HASH)
            change_users(file, lambda users, user=user: users.update({user.name: user}))  # type: ignore[misc]
            await _see_login(run, user.name, 235)
            change_users(file, lambda users, user=user: users.pop(user.name))  # type: ignore[misc]
            await _see_login(run, user.name, 535)
            content, broken = file.read_bytes(), next(spoil)
            file.unlink()
            if broken is not None:
                file.write_bytes(broken)
            await _see_login(run, NAMES[0], 235)
            file.with_suffix(".new").write_bytes(content)
            file.with_suffix(".new").replace(file)
    run.note(f"{len(points)} users came and went")
    check_replies(run, {"250", "250 duplicate"})


async def _see_login(run: Run, name: str, code: int) -> None:
    """Checks the reply to a login of this user."""
    # The reply to a wrong password is the later the more of them have come from an address.
    address = f"127.0.2.{run.chance.randint(1, 254)}"
    async with await connect(run.tls.ports[0], address, run.tls.trust) as client:
        await client.read_reply()
        answer = await run.clients.log_in(client, (name.encode(), PASSWORD))
        if answer.code != code:
            run.complain(f"{name} heard {answer.code} {answer.text!r} in place of {code}")
