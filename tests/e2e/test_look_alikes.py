"""A copy that a server bounces, refuses or hides does not suppress the genuine mail; a key does what it says."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from parts.avideo import NOW, notification
from parts.client import send
from parts.peer import ScriptedPeer
from parts.postfix import Postfix
from parts.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import StartRelay

SENDER = b"contact@tube.example.test"
MAIL = notification()


@pytest.fixture
def spool() -> Iterator[Path]:
    """A folder for mailboxes of local users. Postfix delivers with their rights."""
    with TemporaryDirectory(prefix="spool-") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


async def test_a_copy_that_postfix_bounces_as_a_loop_does_not_suppress_the_genuine_mail(
    start_relay: StartRelay, spool: Path
) -> None:
    local = ["mydestination = local.test", f"mail_spool_directory = {spool}/", "local_recipient_maps ="]
    with Postfix(settings=local) as postfix:
        relay = await start_relay(upstream=postfix.url)
        user = b"nobody@local.test"
        look_alike = await send(relay.port, SENDER, [user], b"Delivered-To: nobody@local.test\r\n" + MAIL)
        await until(lambda: "mail forwarding loop" in postfix.log(), "the bounce")
        genuine = await send(relay.port, SENDER, [user], MAIL)
        assert look_alike.ok
        assert genuine.ok
        await until(lambda: list(spool.rglob("new/*")), "the genuine mail")


@pytest.mark.parametrize(
    ("content", "sender"),
    [
        (b"X-Spam-Flag: YES\r\n" + MAIL, SENDER),
        (
            MAIL.replace(b"Date: ", b"X-Date: ").replace(b"\r\n", b"\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n", 1),
            SENDER,
        ),
        (b"Received: by mx\r\n" * 30 + MAIL, SENDER),
        (MAIL, b"contact@forged.example"),
    ],
    ids=["X-Spam-Flag", "Date", "Received", "reverse-path"],
)
async def test_a_copy_with_a_field_that_servers_act_on_is_another_mail(
    start_relay: StartRelay, content: bytes, sender: bytes
) -> None:
    async with ScriptedPeer() as peer:
        relay = await start_relay(upstream=peer.url, store="memory:")
        for mail, path in ((content, sender), (MAIL, SENDER), (MAIL, b"bounce-7@tube.example.test")):
            assert (await send(relay.port, path, [b"anna@example.test"], mail)).ok
        assert len(peer.accepted) == 2
        assert (await relay.metrics()).outcomes()["suppressed"] == 1


async def test_an_application_says_by_a_key_what_is_a_repeat(start_relay: StartRelay) -> None:
    async with ScriptedPeer() as peer:
        relay = await start_relay(
            upstream=peer.url, store="memory:", settings={"dedup.key_header": '["X-Idempotency-Key"]'}
        )
        for key, body in ((b"7", b"one"), (b"7", b"two"), (b"8", b"one")):
            head = b"Date: %b\r\nFrom: a@example.test\r\nSubject: %b\r\nx-idempotency-KEY:  %b\r\n\r\n"
            mail = head % (f"{NOW:%a, %d %b %Y %T} +0000".encode(), body, key) + body
            assert (await send(relay.port, SENDER, [b"anna@example.test"], mail)).ok
        contents = [message.content for message in peer.accepted]
    assert [content.count(b"x-idempotency-KEY:  7\r\n") for content in contents] == [1, 0]
    assert [content.count(b"x-idempotency-KEY:  8\r\n") for content in contents] == [0, 1]
