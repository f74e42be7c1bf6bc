"""A kept copy from its suppression to its release, counted at the upstream."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from parts.counted_relay import addresses
from parts.faults import Step, drop, say
from parts.logged import wait_logged, wait_messages
from parts.relay_process import Finished
from parts.shared_relay import SharedRelay
from parts.waiting import until_told

from relay.cli import main
from relay.records.kept_copies import KeptCopies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from typing import Any

    from parts.counted_relay import CountedRelay, StartCounted
    from parts.peer import ScriptedPeer

TWO = addresses(2)
WIDE = b"Subject: r\xc3\xa9sum\xc3\xa9\r\n\r\n.dots\r\n..\r\nbare \r and \n and \0 and \xff\r\n"
_ID = re.compile(rb"record ([0-9a-f]{12}),")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def shared_relay(folder: Path) -> Iterator[SharedRelay]:
    with SharedRelay({"record.keep": f"maildir:{folder}/kept"}) as relay:
        yield relay


@pytest.fixture
async def peer(shared_relay: SharedRelay) -> AsyncIterator[ScriptedPeer]:
    """The upstream of the shared relay and of other relays."""
    async with shared_relay.peer() as server:
        yield server


@pytest.fixture
def release(folder: Path, peer: ScriptedPeer) -> Release:
    return Release(folder, peer)


class Release:
    """Runs the command beside the relay, with a store that does not exist: a release needs none."""

    def __init__(self, folder: Path, peer: ScriptedPeer) -> None:
        settings = {
            "store.url": f"sqlite:{folder}/nowhere/relay.db",
            "record.keep": f"maildir:{folder}/kept",
            "upstream.url": peer.url,
            "upstream.patience": "0s",
        }
        self._flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    async def __call__(self, *arguments: str) -> Finished:
        told = await asyncio.to_thread(
            CliRunner().invoke, main, ["release", *self._flags, *arguments], prog_name="relay"
        )
        return Finished(told.exit_code, told.stdout, told.stderr)


async def suppress(relay: CountedRelay, content: bytes | None = None, parameters: bytes = b"") -> str:
    """Sends a message and its repeat, and returns the id of the record."""
    for _ in range(2):
        sent = await relay.send(TWO, content, parameters=parameters)
    found = _ID.search(sent.final.text)
    assert found, sent
    return found[1].decode()


async def test_a_copy_is_released_byte_for_byte(relay: CountedRelay, peer: ScriptedPeer, release: Release) -> None:
    record = await suppress(relay, WIDE, b" BODY=8BITMIME")
    told = await release(record)
    assert (told.status, told.stderr) == (0, "")
    queued = "  250 2.0.0 Ok: queued as "
    assert [line.partition(queued)[0].encode() for line in told.stdout.splitlines()] == TWO
    first, released = peer.accepted
    assert (released.reverse_path, released.recipients) == (first.reverse_path, tuple(TWO))
    assert released.parameters == first.parameters == (b"BODY=8BITMIME",)
    assert first.content.startswith(b"Received: ")
    assert released.content == WIDE


async def test_a_second_release_needs_the_flag_again(relay: CountedRelay, peer: ScriptedPeer, release: Release) -> None:
    record = await suppress(relay)
    assert (await release(record)).status == 0
    told = await release(record)
    assert (told.status, told.stdout) == (1, "")
    assert told.stderr == f"error: {record} was released before; relay release {record} --again sends it once more\n"
    assert peer.copies() == dict.fromkeys(TWO, 2)
    assert (await release(record.upper(), "--again", "--to", "User2@EXAMPLE.test")).status == 0
    assert peer.copies() == {TWO[0]: 2, TWO[1]: 3}


async def test_each_accepted_recipient_is_recorded(relay: CountedRelay, peer: ScriptedPeer, release: Release) -> None:
    record = await suppress(relay)
    assert (await release(record, "--to", TWO[1].decode())).status == 0
    told = await release(record, "--to", TWO[1].decode())
    assert (told.status, told.stdout) == (1, "")
    assert f"{record} was released before" in told.stderr
    told = await release(record)
    assert (told.status, len(told.stdout.splitlines())) == (0, 1)
    assert told.stderr == f"note: {TWO[1].decode()} got it by an earlier release; not sent again\n"
    assert (await release(record)).status == 1
    assert peer.copies() == dict.fromkeys(TWO, 2)


async def test_a_release_that_is_killed_while_it_sends_counts_as_one(
    relay: CountedRelay, peer: ScriptedPeer, release: Release, folder: Path
) -> None:
    record = await suppress(relay)
    marked: list[bool] = []

    async def look(_: object) -> None:
        found = KeptCopies(folder / "kept").find(record)
        marked.append(found is not None and found.released)

    peer.on(Step.DOT, look)
    assert (await release(record)).status == 0
    assert marked == [True]


async def test_a_copy_is_kept_for_its_suppressed_recipients_only(
    relay: CountedRelay, peer: ScriptedPeer, release: Release
) -> None:
    async def told_of_both() -> dict[str, Any] | None:
        lines = await wait_messages(relay.process, 1)
        return next((line for line in lines if line["recipients"] == {"forwarded": 1, "suppressed": 1}), None)

    await relay.send(TWO[:1])
    assert (await relay.send(TWO)).final.text.startswith(b"2.0.0 Ok: queued as ")
    second = await until_told(told_of_both, "the line of the second message")
    assert (await release(second["record"])).status == 0
    assert [message.recipients for message in peer.accepted] == [(TWO[0],), (TWO[1],), (TWO[0],)]


async def test_a_refusal_is_reported_and_can_be_tried_again(
    relay: CountedRelay, peer: ScriptedPeer, release: Release
) -> None:
    record = await suppress(relay)
    peer.on(Step.RCPT, say(b"550 5.1.1 No such user"), matching=TWO[0])
    told = await release(record)
    assert told.status == 1
    one, two = told.stdout.splitlines()
    assert one == f"{TWO[0].decode()}  550 5.1.1 No such user"
    assert two.startswith(f"{TWO[1].decode()}  250 2.0.0 Ok: queued as ")
    assert f"not accepted for 1 of 2; to try again: relay release {record}\n" in told.stderr
    assert (await release(record)).status == 0
    assert peer.copies() == dict.fromkeys(TWO, 2)


@pytest.mark.parametrize("reply", [b"452 4.3.1 Disk full", b"554 5.7.1 No"])
async def test_what_is_refused_after_the_dot_stays_kept(
    relay: CountedRelay, peer: ScriptedPeer, release: Release, reply: bytes
) -> None:
    record = await suppress(relay)
    peer.on(Step.DOT, say(reply))
    told = await release(record)
    assert told.status == 1
    assert told.stdout.splitlines() == [f"{to.decode()}  {reply.decode()}" for to in TWO]
    assert (await release(record)).status == 0


async def test_a_dot_without_reply_has_an_unclear_outcome(
    relay: CountedRelay, peer: ScriptedPeer, release: Release
) -> None:
    record = await suppress(relay)
    peer.on(Step.REPLY, drop())
    told = await release(record)
    assert told.status == 1
    assert told.stdout.startswith(f"{TWO[0].decode()}  no reply after the dot: ")
    assert (
        f"error: for 2 of 2 it is unknown whether the upstream accepted it; relay release {record} --again sends"
        in told.stderr
    )
    assert (await release(record)).status == 1
    assert peer.copies() == dict.fromkeys(TWO, 2)


async def test_an_upstream_that_is_gone_leaves_the_copy_as_it_is(
    relay: CountedRelay, peer: ScriptedPeer, release: Release
) -> None:
    record = await suppress(relay)
    await peer.stop()
    told = await release(record)
    assert told.status == 1
    assert told.stdout.startswith(f"{TWO[0].decode()}  451 4.4.1 ")
    await peer.start()
    assert (await release(record)).status == 0


async def test_mail_flows_where_copies_cannot_be_kept(
    start_counted: StartCounted, peer: ScriptedPeer, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    relay = await start_counted(upstream=peer.url, settings={"record.keep": f"maildir:{tmp_path}/file"})
    await suppress(relay)
    error = f"Not a directory: {tmp_path}/file"
    await wait_logged(relay.process, f'"event": "a copy could not be kept", "error": "{error}"')
    assert (await relay.process.metrics()).value("smtp_dedup_records_lost_total") == 1
