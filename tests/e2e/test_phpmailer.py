"""The real PHPMailer, used as AVideo uses it, through a relay: the results for AVideo, and the deliveries."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from parts.logged import wait_upstream
from parts.phpmailer import send_as_avideo
from parts.postfix import USERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.phpmailer import Chunk
    from parts.postfix import Postfix
    from parts.relay_process import RelayProcess

SUBSCRIBERS = USERS[:120]
SUBJECT = "New video: Sunrise 🎬 over the lake — part 2 - Example Tube"


@pytest.fixture
async def relay(start_relay: StartRelay, peer: ScriptedPeer) -> RelayProcess:
    started = await start_relay(upstream=peer.url)
    await wait_upstream(started, "up")
    return started


def notice(cache: str = "16244653051624465305") -> str:
    """Returns the HTML of a notice. PHPMailer adds the plain part, Message-ID, Date and boundaries."""
    style = "".join(f".r{number} {{ margin: 0 auto; }}\n" for number in range(300))
    return (
        f"<html><head><style>{style}</style></head><body><table>\n"
        f"<tr><td><img src='https://tube.example.test/videos/9d1f/thumb.jpg?cache={cache}'></td></tr>\n"
        "<tr><td>marta has uploaded a new video <b>Sunrise 🎬 over the lake — part 2</b></td></tr>\n"
        '<tr><td><a href="https://tube.example.test/video/9d1f">Watch it</a></td></tr>\n'
        "</table></body></html>"
    )


def recovery(token: str) -> str:
    link = f"https://tube.example.test/recoverPass?user=marta&amp;recoverpass={token}"
    return f'<html><body><p>Somebody asked for a new password.</p><a href="{link}">Go on</a></body></html>'


def once(peer: ScriptedPeer, subscribers: Iterable[str]) -> bool:
    return peer.copies() == Counter(subscriber.encode() for subscriber in subscribers)


def assert_all_ok(runs: Iterable[list[Chunk]]) -> None:
    assert [chunk.error for run in runs for chunk in run if not chunk.ok or chunk.error] == []


async def test_four_processes_at_once_deliver_a_notice_once_to_each_subscriber(
    start_relay: StartRelay, postfix: Postfix
) -> None:
    relay = await start_relay(upstream=postfix.url)
    sends = (send_as_avideo(relay.port, SUBSCRIBERS, SUBJECT, notice()) for _ in range(4))
    runs = await asyncio.gather(*sends)
    assert [[len(chunk.recipients) for chunk in run] for run in runs] == [[50, 50, 20]] * 4
    assert_all_ok(runs)
    await postfix.wait_delivered(120)
    assert postfix.deliveries() == dict.fromkeys(SUBSCRIBERS, 1)
    metrics = await relay.metrics()
    assert metrics.outcomes() == {"forwarded": 120, "suppressed": 360}
    assert metrics.messages() == {"2xx": 12}


async def test_two_processes_with_other_chunks_in_other_order_deliver_once(
    relay: RelayProcess, peer: ScriptedPeer
) -> None:
    runs = await asyncio.gather(
        send_as_avideo(relay.port, SUBSCRIBERS, SUBJECT, notice(), chunk=50),
        send_as_avideo(relay.port, SUBSCRIBERS[::-1], SUBJECT, notice(), chunk=90),
    )
    assert_all_ok(runs)
    assert once(peer, SUBSCRIBERS)
    # Later, with another cache value. A single recipient is in To rather than in Bcc.
    later = [
        await send_as_avideo(relay.port, SUBSCRIBERS, SUBJECT, notice("16244653651624465365"), chunk=30),
        await send_as_avideo(relay.port, SUBSCRIBERS[:1], SUBJECT, notice("not_found")),
    ]
    assert_all_ok(later)
    assert later[1][0].heard[-2].startswith("250 2.0.0 Ok: duplicate, record ")
    assert once(peer, SUBSCRIBERS)
    # Only a new recipient among them gets it.
    assert_all_ok([await send_as_avideo(relay.port, USERS[115:121], SUBJECT, notice())])
    assert once(peer, USERS[:121])


async def test_two_recovery_mails_arrive_both_even_with_the_same_link(relay: RelayProcess, peer: ScriptedPeer) -> None:
    for token in ("61f0a9c4", "8be2d713", "8be2d713"):
        assert_all_ok([await send_as_avideo(relay.port, USERS[:1], "Password help", recovery(token))])
    links = [message.content.partition(b"recoverpass=")[2][:8] for message in peer.accepted]
    assert links == [b"61f0a9c4", b"8be2d713", b"8be2d713"]
    assert (await relay.metrics()).value("smtp_dedup_exempt_messages_total") == 3


async def test_a_chunk_with_an_unknown_subscriber_reaches_the_others(start_relay: StartRelay, postfix: Postfix) -> None:
    relay = await start_relay(upstream=postfix.url)
    recipients = [*USERS[:49], "nobody@example.test"]
    for _ in range(2):
        (chunk,) = await send_as_avideo(relay.port, recipients, SUBJECT, notice())
        assert not chunk.ok
        assert "<nobody@example.test>: Recipient address rejected: User unknown" in chunk.error
    await postfix.wait_delivered(49)
    assert postfix.deliveries() == dict.fromkeys(USERS[:49], 1)
