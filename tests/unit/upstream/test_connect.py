"""The addresses of a host, the greeting, the name in EHLO, and what `connect` reports when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
from parts.certificates import Authority, server_context
from parts.faults import Step, drop, hang, say_and_drop
from parts.peer import ScriptedPeer
from parts.ports import HOST

from relay.core.errors import UpstreamDown, UpstreamRefused
from relay.service.build_upstream import public_name
from relay.upstream.connect import Target, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from parts.faults import Action

OTHER = "127.0.0.2"


def addresses(*hosts: str) -> Callable[[Target], Any]:
    """Returns a name look-up that finds these addresses."""

    async def look_up(target: Target) -> Sequence[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, target.port)) for host in hosts]

    return look_up


@contextlib.contextmanager
def dead(host: str, port: int) -> Iterator[None]:
    """Listens with a full queue: further SYNs get no answer, as from a host that is down."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


async def test_the_second_address_is_used_if_the_first_one_does_not_answer(peer: ScriptedPeer) -> None:
    with dead(OTHER, peer.port):
        async with asyncio.timeout(5):
            connection = await connect(Target("two.test", peer.port, limit=10.0), look_up=addresses(OTHER, HOST))
    connection.wire.quit()
    assert len(peer.sessions) == 1


@pytest.mark.parametrize("end", [drop(), say_and_drop(b"421 4.3.2 going down")], ids=["drop", "421"])
async def test_the_second_address_is_used_if_the_first_one_does_not_greet(peer: ScriptedPeer, end: Action) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Exception):
            await end(_Caller(writer))
        writer.close()

    async with await asyncio.start_server(serve, OTHER, peer.port):
        connection = await connect(Target("two.test", peer.port), look_up=addresses(OTHER, HOST))
    connection.wire.quit()
    assert len(peer.sessions) == 1


class _Caller:
    number = 1

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer


async def test_all_addresses_share_the_time_limit(peer: ScriptedPeer) -> None:
    with dead(OTHER, peer.port), dead("127.0.0.3", peer.port):
        begun = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamDown, match=r"not ready for mail within 0\.5 s"):
            await connect(Target("two.test", peer.port, limit=0.5), look_up=addresses(OTHER, "127.0.0.3"))
        assert asyncio.get_running_loop().time() - begun < 3 * 0.5


async def test_a_greeting_has_its_own_limit(peer: ScriptedPeer) -> None:
    async def be_late(_: object) -> None:
        await asyncio.sleep(0.5)

    peer.on(Step.GREETING, be_late)
    connection = await connect(Target(HOST, peer.port, limit=0.3, greeting_limit=20.0))
    connection.wire.quit()
    peer.on(Step.GREETING, hang())
    with pytest.raises(UpstreamDown, match=r"not ready for mail within 0\.2 s"):
        await connect(Target(HOST, peer.port, limit=20.0, greeting_limit=0.2))
    peer.on(Step.EHLO, hang())
    with pytest.raises(UpstreamDown, match=r"not ready for mail within 0\.2 s"):
        await connect(Target(HOST, peer.port, limit=0.2, greeting_limit=20.0))


@pytest.mark.parametrize(("name", "said"), [("mx.example.test", b"mx.example.test"), ("", b"[127.0.0.1]")])
async def test_the_name_in_ehlo_is_the_one_of_the_settings_or_an_address_literal(
    peer: ScriptedPeer, name: str, said: bytes
) -> None:
    connection = await connect(Target(HOST, peer.port, helo_name=name))
    connection.wire.quit()
    assert peer.commands(b"EHLO") == [b"EHLO " + said]


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("mx.example.com", "mx.example.com"),
        ("localhost", ""),
        ("localhost.localdomain", ""),
        ("a1b2c3d4", ""),
        ("1.0.0.127.in-addr.arpa", ""),
        ("web.local", ""),
    ],
)
def test_the_default_name_in_ehlo_is_one_that_other_hosts_can_look_up(hostname: str, name: str) -> None:
    assert public_name(hostname) == name


async def test_a_ca_without_key_usage_is_refused_with_the_remedy(tmp_path: Path) -> None:
    authority = Authority(tmp_path, extensions=())
    trust = authority.trust()
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    async with ScriptedPeer(tls=server_context(authority.issue())) as peer:
        target = Target(HOST, peer.port, implicit_tls=True, tls=trust)
        with pytest.raises(UpstreamRefused) as raised:
            await connect(target)
    assert "CA cert does not include key usage extension; Python 3.13" in str(raised.value)
    assert "keyUsage=critical,keyCertSign,cRLSign" in str(raised.value)
