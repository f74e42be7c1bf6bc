"""Records from end to end: a relay suppresses copies, and commands show the records and forget acceptances."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from parts.counted_relay import addresses
from parts.logged import wait_messages
from parts.relay_process import Finished
from parts.waiting import until_told

from relay.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from parts.client import Sent
    from parts.counted_relay import CountedRelay, StartCounted
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer

TWO = addresses(2)
DUPLICATE_REPLY = re.compile(rb"2\.0\.0 Ok: duplicate, record ([0-9a-f]{12}), first sent \d+ s ago")


class Installation:
    """Starts relays, and runs commands with the same settings."""

    def __init__(self, start_counted: StartCounted, peer: ScriptedPeer, store: str, folder: Path) -> None:
        self._start_counted = start_counted
        self._peer = peer
        self.store = store
        self.folder = folder
        self.settings: dict[str, object] = {"record.secret_file": f"{folder}/record.key", "store.timeout": "20s"}
        if store == "memory:":
            self.settings["admin.socket"] = f"{folder}/admin.sock"

    async def start_relay(self) -> CountedRelay:
        return await self._start_counted(upstream=self._peer.url, store=self.store, settings=self.settings)

    async def run(self, command: str, *arguments: str) -> Finished:
        """Runs a command in a thread of this process, which is faster than a process."""
        settings = self.settings | {
            "store.url": self.store,
            "upstream.url": self._peer.url,
            "upstream.patience": "0s",
        }
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        told = await asyncio.to_thread(CliRunner().invoke, main, [command, *flags, *arguments], prog_name="relay")
        return Finished(told.exit_code, told.stdout, told.stderr)


@pytest.fixture(params=["sqlite", "redis", "memory"])
def installation(
    request: pytest.FixtureRequest, tmp_path: Path, start_counted: StartCounted, peer: ScriptedPeer
) -> Installation:
    """An installation with each kind of store."""
    store = {"sqlite": f"sqlite:{tmp_path}/relay.db", "memory": "memory:"}.get(request.param)
    if store is None:
        server: RedisServer = request.getfixturevalue("redis_server")
        store = server.url
    return Installation(start_counted, peer, store, tmp_path)


@pytest.fixture
def sqlite_installation(tmp_path: Path, start_counted: StartCounted, peer: ScriptedPeer) -> Installation:
    """An installation for tests that do not depend on the kind of store."""
    return Installation(start_counted, peer, f"sqlite:{tmp_path}/relay.db", tmp_path)


def repeat_id(sent: Sent) -> str:
    """Returns the id in the reply to a repeat."""
    found = DUPLICATE_REPLY.fullmatch(sent.final.text)
    assert found, sent
    return found[1].decode()


def with_id(relay: CountedRelay, number: int, field: bytes = b"X-Mailer: x") -> bytes:
    return b"Message-ID: <%d@tube.example.test>\r\n%b\r\n%b" % (number, field, relay.mail)


async def test_one_id_leads_from_the_reply_to_the_original(installation: Installation, peer: ScriptedPeer) -> None:
    relay = await installation.start_relay()
    assert (await relay.send(TWO, with_id(relay, 1))).ok
    record = repeat_id(await relay.send(TWO, with_id(relay, 2)))
    first, second = await wait_messages(relay.process, 2)
    assert second["record"] == record

    listed = await installation.run("suppressed", "--since", "1h")
    assert listed.status == 0
    assert re.search(
        rf"  {record}  2 recipients  \d+ m?s after {first['record']}  suppressed  rule default\n", listed.stdout
    )
    assert listed.stderr.endswith("1 message to 2 recipients in the last 1 h\n")

    for what in (record, "2@tube.example.test", "<1@tube.example.test>", first["record"], TWO[0].decode().upper()):
        told = await installation.run("why", what)
        assert told.status == 0, told
        assert told.stdout.startswith("Message-ID <1@tube.example.test>, from h:")
        assert f"  {first['record']}  forwarded to " in told.stdout
        assert f"  {record}  suppressed for " in told.stdout
        assert re.search(rf" repeats   {first['record']}, accepted \d+ m?s before\n", told.stdout)
        assert " reply     250 2.0.0 Ok: queued as " in told.stdout
        assert " equal in  Subject " in told.stdout
        assert " copy      not kept (record.keep is off)\n" in told.stdout


async def test_a_record_contains_no_address_and_no_word_of_the_mail(
    sqlite_installation: Installation, peer: ScriptedPeer
) -> None:
    relay = await sqlite_installation.start_relay()
    for _ in range(2):
        await relay.send(TWO, b"Subject: Your code\r\n\r\nSecret 93418\r\n", sender=b"boss@example.test")
    listed = (await sqlite_installation.run("suppressed", "--json")).stdout
    record = json.loads(listed)
    assert len(record["recipients"]) == 2
    assert not [word for word in ("user1", "user2", "boss", "Your code", "93418") if word in listed]
    assert stat.S_IMODE((sqlite_installation.folder / "record.key").stat().st_mode) == 0o600


async def test_addresses_are_recorded_with_record_addresses(
    sqlite_installation: Installation, peer: ScriptedPeer
) -> None:
    sqlite_installation.settings["record.addresses"] = "true"
    relay = await sqlite_installation.start_relay()
    for _ in range(2):
        await relay.send(TWO)
    record = json.loads((await sqlite_installation.run("suppressed", "--json")).stdout)
    assert [one["recipient"].encode() for one in record["recipients"]] == TWO
    assert record["from"] == "contact@tube.example.test"
    assert (await sqlite_installation.run("why", "User2@example.test")).status == 0
    assert (await sqlite_installation.run("forget", "User2@example.test")).stdout == "forgot 1 acceptance\n"


async def test_what_is_only_observed_is_forwarded_and_recorded(
    sqlite_installation: Installation, peer: ScriptedPeer
) -> None:
    sqlite_installation.settings["dedup.mode"] = "observe"
    relay = await sqlite_installation.start_relay()
    for _ in range(2):
        assert (await relay.send(TWO)).ok
    assert peer.copies() == dict.fromkeys(TWO, 2)
    listed = (await sqlite_installation.run("suppressed")).stdout
    assert "  would_suppress  rule " in listed
    told = (await sqlite_installation.run("why", listed.split()[1])).stdout
    assert "  forwarded, because it was only observed, to h:" in told


async def test_with_keep_for_0_nothing_is_recorded(sqlite_installation: Installation, peer: ScriptedPeer) -> None:
    sqlite_installation.settings["record.keep_for"] = "0"
    relay = await sqlite_installation.start_relay()
    await relay.send(TWO)
    record = repeat_id(await relay.send(TWO))
    assert (await sqlite_installation.run("suppressed")).stdout == ""
    told = await sqlite_installation.run("why", record)
    assert (told.status, "record.keep_for is 0" in told.stderr) == (1, True)
    assert (await sqlite_installation.run("forget", TWO[0].decode())).stdout == "forgot 1 acceptance\n"


# Forgetting


async def test_what_is_forgotten_is_forwarded_at_once(installation: Installation, peer: ScriptedPeer) -> None:
    relay = await installation.start_relay()
    for number, what in enumerate(["original", "repeat", "message-id", "since", "all"], 1):
        mail = with_id(relay, number, b"Subject: " + what.encode())
        assert (await relay.send(TWO, mail)).ok
        record = repeat_id(await relay.send(TWO, mail.replace(b"@tube", b"@second")))
        first, *_ = (await wait_messages(relay.process, 5 * number - 3))[-2:]
        meant = {
            "original": [first["record"]],
            "repeat": [record],
            "message-id": [f"<{number}@tube.example.test>"],
            "since": ["--since", "1h"],
            "all": ["--all"],
        }[what]
        # The acceptances of earlier rounds are in the store too.
        count = {"since": 8, "all": 4}.get(what, 2)
        assert (await installation.run("forget", *meant, "--dry-run")).stdout == f"would forget {count} acceptances\n"
        repeat_id(await relay.send(TWO, mail))
        told = await installation.run("forget", *meant)
        assert (told.status, told.stdout) == (0, f"forgot {count} acceptances\n")
        assert (await relay.send(TWO, mail)).final.text.startswith(b"2.0.0 Ok: queued as ")
        repeat_id(await relay.send(TWO, mail))
    assert peer.copies() == dict.fromkeys(TWO, 10)


async def test_one_recipient_is_forgotten_and_the_others_are_not(
    sqlite_installation: Installation, peer: ScriptedPeer
) -> None:
    relay = await sqlite_installation.start_relay()
    assert (await relay.send(TWO)).ok
    assert (await sqlite_installation.run("forget", TWO[0].decode())).stdout == "forgot 1 acceptance\n"
    assert (await relay.send(TWO)).ok
    assert peer.copies() == {TWO[0]: 2, TWO[1]: 1}


@pytest.mark.parametrize("installation", ["sqlite", "redis"], indirect=True)
async def test_other_relays_on_the_store_forget_too(installation: Installation, peer: ScriptedPeer) -> None:
    one = await installation.start_relay()
    other = await installation.start_relay()
    other.mail = one.mail
    assert (await one.send(TWO)).ok
    repeat_id(await other.send(TWO))
    repeat_id(await one.send(TWO))
    assert (await installation.run("forget", "--all")).stdout == "forgot 2 acceptances\n"
    assert (await other.send(TWO)).final.text.startswith(b"2.0.0 Ok: queued as ")
    repeat_id(await one.send(TWO))
    assert peer.copies() == dict.fromkeys(TWO, 2)


# Without the store


async def test_records_are_written_when_the_store_returns(
    start_counted: StartCounted, peer: ScriptedPeer, redis_server: RedisServer, tmp_path: Path
) -> None:
    installation = Installation(start_counted, peer, redis_server.url, tmp_path)
    relay = await installation.start_relay()
    assert (await relay.send(TWO)).ok
    await asyncio.to_thread(redis_server.kill)
    records = [repeat_id(await relay.send(TWO)) for _ in range(3)]
    told = await installation.run("suppressed")
    assert told.status == 1
    assert f"error: store.url {installation.store}: " in told.stderr
    await asyncio.to_thread(redis_server.start)

    async def has_all_records() -> Any:
        told = await installation.run("suppressed")
        return sorted(line.split()[1] for line in told.stdout.splitlines()) == sorted(records)

    await until_told(has_all_records, "the records in the store")


async def test_queued_records_are_written_at_the_end(
    start_counted: StartCounted, peer: ScriptedPeer, redis_server: RedisServer, tmp_path: Path
) -> None:
    installation = Installation(start_counted, peer, redis_server.url, tmp_path)
    relay = await installation.start_relay()
    assert (await relay.send(TWO)).ok
    record = repeat_id(await relay.send(TWO))
    relay.process.terminate()
    await relay.wait_drained()
    assert f"  {record}  " in (await installation.run("suppressed")).stdout
