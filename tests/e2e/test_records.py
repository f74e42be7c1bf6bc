"""Records from end to end: a relay suppresses, and commands beside it tell of it, and make it forget."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from parts.desk import people
from parts.logged import wait_messages
from parts.ports import HOST
from parts.relay_process import Finished
from parts.waiting import until_told

from relay.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from parts.client import Sent
    from parts.desk import Desk, OpenDesk
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

TWO = people(2)
SAID_AGAIN = re.compile(rb"2\.0\.0 Ok: duplicate, record ([0-9a-f]{12}), first sent \d+ s ago")


class Office:
    """A relay with its store, and the commands with the same settings beside it."""

    def __init__(self, open_desk: OpenDesk, peer: ScriptedPeer, store: str, folder: Path) -> None:
        self._open_desk = open_desk
        self._peer = peer
        self.store = store
        self.folder = folder
        self.settings: dict[str, object] = {"record.secret_file": f"{folder}/record.key", "store.timeout": "20s"}
        self.http = ""

    async def open(self) -> Desk:
        desk = await self._open_desk(upstream=self._peer.url, store=self.store, settings=self.settings)
        self.http = f"{HOST}:{desk.relay.http_port}"
        return desk

    async def call(self, command: str, *arguments: str) -> Finished:
        """Run a command in a thread of this process, which is quicker than one of its own."""
        settings = self.settings | {
            "store.url": self.store,
            "http.address": self.http,
            "upstream.url": self._peer.url,
            "upstream.patience": "0s",
        }
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        told = await asyncio.to_thread(CliRunner().invoke, main, [command, *flags, *arguments], prog_name="relay")
        return Finished(told.exit_code, told.stdout, told.stderr)


@pytest.fixture(params=["sqlite", "redis", "memory"])
def office(request: pytest.FixtureRequest, tmp_path: Path, open_desk: OpenDesk, peer: ScriptedPeer) -> Office:
    """An office on each kind of store."""
    store = {"sqlite": f"sqlite:{tmp_path}/relay.db", "memory": "memory:"}.get(request.param)
    if store is None:
        server: RedisServer = request.getfixturevalue("redis_server")
        store = server.url
    return Office(open_desk, peer, store, tmp_path)


@pytest.fixture
def in_sqlite(tmp_path: Path, open_desk: OpenDesk, peer: ScriptedPeer) -> Office:
    """An office where the kind of store does not matter."""
    return Office(open_desk, peer, f"sqlite:{tmp_path}/relay.db", tmp_path)


def repeat_id(sent: Sent) -> str:
    """Give the id that a reply to a repeat names."""
    found = SAID_AGAIN.fullmatch(sent.final.text)
    assert found, sent
    return found[1].decode()


def with_id(desk: Desk, number: int, field: bytes = b"X-Mailer: x") -> bytes:
    return b"Message-ID: <%d@tube.example.test>\r\n%b\r\n%b" % (number, field, desk.mail)


async def test_one_id_leads_from_the_reply_to_the_original(office: Office, peer: ScriptedPeer) -> None:
    desk = await office.open()
    assert (await desk.send(TWO, with_id(desk, 1))).ok
    record = repeat_id(await desk.send(TWO, with_id(desk, 2)))
    first, second = await wait_messages(desk.relay, 2)
    assert second["record"] == record

    listed = await office.call("suppressed", "--since", "1h")
    assert listed.status == 0
    assert re.search(
        rf"  {record}  2 recipients  \d+ s after {first['record']}  suppressed  rule default\n", listed.stdout
    )
    assert listed.stderr.endswith("1 message to 2 recipients in the last 60 min\n")

    for what in (record, "2@tube.example.test", "<1@tube.example.test>", first["record"], TWO[0].decode().upper()):
        told = await office.call("why", what)
        assert told.status == 0, told
        assert re.search(
            rf"\n  repeats     {first['record']}, \d+ s older, accepted by the upstream at 20", told.stdout
        )
        assert "Message-ID <1@tube.example.test>; the upstream said: 2.0.0 Ok: queued as " in told.stdout
        assert "\n  equal in    Subject " in told.stdout
        assert "\n  copy        not kept (record.keep is off)" in told.stdout


async def test_a_record_holds_no_address_and_no_word_of_the_mail(in_sqlite: Office, peer: ScriptedPeer) -> None:
    desk = await in_sqlite.open()
    for _ in range(2):
        await desk.send(TWO, b"Subject: Your code\r\n\r\nSecret 93418\r\n", sender=b"boss@example.test")
    listed = (await in_sqlite.call("suppressed", "--json")).stdout
    record = json.loads(listed)
    assert len(record["recipients"]) == 2
    assert not [word for word in ("user1", "user2", "boss", "Your code", "93418") if word in listed]
    assert stat.S_IMODE((in_sqlite.folder / "record.key").stat().st_mode) == 0o600


async def test_addresses_are_named_where_the_operator_says_so(in_sqlite: Office, peer: ScriptedPeer) -> None:
    in_sqlite.settings["record.addresses"] = "true"
    desk = await in_sqlite.open()
    for _ in range(2):
        await desk.send(TWO)
    record = json.loads((await in_sqlite.call("suppressed", "--json")).stdout)
    assert [one["recipient"].encode() for one in record["recipients"]] == TWO
    assert record["from"] == "contact@tube.example.test"
    assert (await in_sqlite.call("why", "User2@example.test")).status == 0
    assert (await in_sqlite.call("forget", "User2@example.test")).stdout == "forgot 1 acceptance\n"


async def test_what_is_only_observed_is_forwarded_and_recorded(in_sqlite: Office, peer: ScriptedPeer) -> None:
    in_sqlite.settings["dedup.mode"] = "observe"
    desk = await in_sqlite.open()
    for _ in range(2):
        assert (await desk.send(TWO)).ok
    assert peer.copies() == dict.fromkeys(TWO, 2)
    listed = (await in_sqlite.call("suppressed")).stdout
    assert "  would_suppress  rule " in listed
    told = (await in_sqlite.call("why", listed.split()[1])).stdout
    assert "\n  forwarded   all the same, because it was only observed, to 2 recipients: h:" in told


async def test_with_keep_for_0_nothing_is_recorded(in_sqlite: Office, peer: ScriptedPeer) -> None:
    in_sqlite.settings["record.keep_for"] = "0"
    desk = await in_sqlite.open()
    await desk.send(TWO)
    record = repeat_id(await desk.send(TWO))
    assert (await in_sqlite.call("suppressed")).stdout == ""
    told = await in_sqlite.call("why", record)
    assert (told.status, "record.keep_for is 0" in told.stderr) == (1, True)
    assert (await in_sqlite.call("forget", TWO[0].decode())).stdout == "forgot 1 acceptance\n"


# Forgetting


async def test_what_is_forgotten_is_forwarded_at_once(office: Office, peer: ScriptedPeer) -> None:
    desk = await office.open()
    for number, what in enumerate(["original", "repeat", "message-id", "since", "all"], 1):
        mail = with_id(desk, number, b"Subject: " + what.encode())
        assert (await desk.send(TWO, mail)).ok
        record = repeat_id(await desk.send(TWO, mail.replace(b"@tube", b"@second")))
        first, *_ = (await wait_messages(desk.relay, 5 * number - 3))[-2:]
        meant = {
            "original": [first["record"]],
            "repeat": [record],
            "message-id": [f"<{number}@tube.example.test>"],
            "since": ["--since", "1h"],
            "all": ["--all"],
        }[what]
        # What was sent before stands there too.
        count = {"since": 8, "all": 4}.get(what, 2)
        assert (await office.call("forget", *meant, "--dry-run")).stdout == f"would forget {count} acceptances\n"
        repeat_id(await desk.send(TWO, mail))
        told = await office.call("forget", *meant)
        assert (told.status, told.stdout) == (0, f"forgot {count} acceptances\n")
        assert (await desk.send(TWO, mail)).final.text.startswith(b"2.0.0 Ok: queued as ")
        repeat_id(await desk.send(TWO, mail))
    assert peer.copies() == dict.fromkeys(TWO, 10)


async def test_one_recipient_is_forgotten_and_the_others_are_not(in_sqlite: Office, peer: ScriptedPeer) -> None:
    desk = await in_sqlite.open()
    assert (await desk.send(TWO)).ok
    assert (await in_sqlite.call("forget", TWO[0].decode())).stdout == "forgot 1 acceptance\n"
    assert (await desk.send(TWO)).ok
    assert peer.copies() == {TWO[0]: 2, TWO[1]: 1}


@pytest.mark.parametrize("office", ["sqlite", "redis"], indirect=True)
async def test_other_relays_on_the_store_forget_too(office: Office, peer: ScriptedPeer) -> None:
    one = await office.open()
    other = await office.open()
    other.mail = one.mail
    assert (await one.send(TWO)).ok
    repeat_id(await other.send(TWO))
    repeat_id(await one.send(TWO))
    assert (await office.call("forget", "--all")).stdout == "forgot 2 acceptances\n"
    assert (await other.send(TWO)).final.text.startswith(b"2.0.0 Ok: queued as ")
    repeat_id(await one.send(TWO))
    assert peer.copies() == dict.fromkeys(TWO, 2)


# A store that is away


async def test_records_are_written_when_the_store_returns(
    open_desk: OpenDesk, peer: ScriptedPeer, redis_server: RedisServer, tmp_path: Path
) -> None:
    office = Office(open_desk, peer, redis_server.url, tmp_path)
    desk = await office.open()
    assert (await desk.send(TWO)).ok
    await asyncio.to_thread(redis_server.kill)
    records = [repeat_id(await desk.send(TWO)) for _ in range(3)]
    told = await office.call("suppressed")
    assert told.status == 1
    assert f"error: store.url {office.store}: " in told.stderr
    await asyncio.to_thread(redis_server.start)

    async def all_there() -> Any:
        told = await office.call("suppressed")
        return sorted(line.split()[1] for line in told.stdout.splitlines()) == sorted(records)

    await until_told(all_there, "the records in the store")


async def test_records_that_wait_are_written_at_the_end(
    open_desk: OpenDesk, peer: ScriptedPeer, redis_server: RedisServer, tmp_path: Path
) -> None:
    office = Office(open_desk, peer, redis_server.url, tmp_path)
    desk = await office.open()
    assert (await desk.send(TWO)).ok
    record = repeat_id(await desk.send(TWO))
    desk.relay.terminate()
    await desk.drained()
    assert f"  {record}  " in (await office.call("suppressed")).stdout
