"""`relay suppressed`, `why`, `release` and `forget` as an operator meets them, on stores that tests have filled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from click.testing import CliRunner, Result
from parts.ports import HOST, free_port
from parts.relay_process import Finished, run_relay

from relay.claims.memory import MemoryStore
from relay.claims.sqlite.store import SqliteStore
from relay.cli import main
from relay.core.claim import Confirm, Fingerprint, Note, Original
from relay.core.content import Content
from relay.core.envelope import fold
from relay.core.outcome import Outcome
from relay.core.record import Record, Repeat, SuppressedCopy
from relay.monitor.http import COMMAND, HttpServer
from relay.monitor.metrics import Metrics
from relay.records.codec import encode
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret
from relay.records.selection import Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from relay.core.claim import Command
    from relay.core.store import Store

DAY = 86400.0
NOW = time.time()
COMMANDS = ("suppressed", "why 0123456789ab", "forget 0123456789ab", "forget --all")
FIRST = Original("aaaaaaaaaaaa", "<first@example.test>", "2.0.0 Ok: queued as 4XYZ", NOW - 154)
OTHER = Original("bbbbbbbbbbbb", "<other@example.test>", "2.0.0 Ok: queued as 5XYZ", NOW - 220)


def repeat(name: str, original: Original | None = FIRST, **more: Any) -> Repeat:
    values = {"outcome": Outcome.SUPPRESSED, "rule": "default", "fingerprint": f"v1:{name}", "age": 34.0}
    return Repeat(recipient=name, original=original, **(values | more))


def record(id_: str, *repeats: Repeat, at: float = NOW - 120, **more: Any) -> Record:
    values = {
        "message_id": f"<{id_}@example.test>",
        "sender": "h:1111111111111111",
        "forms": {"default": ("Subject 1c9f03a2", "text/html 00112233")},
        "ignored": {"default": ("avideo: cache value of a thumbnail",)},
    }
    return Record(id=id_, at=at, repeats=repeats, **(values | more))


class Place:
    """A SQLite store with its secret beside it, filled before the commands look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flags = ["--set", f"store.url=sqlite:{folder}/relay.db", "--set", f"record.keep=maildir:{folder}/kept"]
        self.names = Pseudonyms(ensure_secret(None, folder / "record.key"), plain=False)
        self.keep = KeptCopies(folder / "kept")

    def name(self, address: str) -> str:
        return self.names(fold(address.encode()))

    def fill(self, *records: Record, sent: Sequence[Command] = ()) -> None:
        notes = [Note(one.id, encode(one), 30 * DAY) for one in records]
        asyncio.run(filled(SqliteStore(self.folder / "relay.db"), [*notes, *sent]))

    def sent(self, key: str, original: Original = FIRST, *, to: str = "", age: float = 100.0) -> Command:
        return Confirm(Fingerprint(key), original, 600.0, age, self.name(to))

    def call(self, command: str, *arguments: str) -> Result:
        given = [command, *self.flags, *arguments]
        return CliRunner().invoke(main, given, prog_name="relay", env={"STATE_DIRECTORY": str(self.folder)})


async def filled(store: Store, commands: Sequence[Command]) -> None:
    await store.open()
    await store.execute(commands)
    await store.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# relay suppressed


def test_suppressed_shows_a_line_each_the_latest_last(place: Place) -> None:
    early = record("000000000001", repeat("h:a"), repeat("h:b"))
    late = record("000000000002", repeat("h:a", OTHER, age=300.0, outcome=Outcome.WOULD_SUPPRESS, rule="codes"))
    place.fill(early, late)
    told = place.call("suppressed")
    assert told.exit_code == 0
    first, second = told.stdout.splitlines()
    assert first.split("  ")[1:3] == ["000000000001", "2 recipients"]
    assert first.endswith("  34 s after aaaaaaaaaaaa   suppressed      rule default")
    assert second.endswith("  5 min after bbbbbbbbbbbb  would_suppress  rule codes")
    assert told.stderr == "2 messages to 3 recipients in the last 24 h\n"


def test_suppressed_names_several_originals_and_none(place: Place) -> None:
    place.fill(
        record("000000000001", repeat("h:a"), repeat("h:b", OTHER, rule="codes")),
        record("000000000002", repeat("h:a", None, outcome=Outcome.WOULD_SUPPRESS)),
    )
    first, second = place.call("suppressed").stdout.splitlines()
    assert "2 recipients  34 s after aaaaaaaaaaaa and 1 more  suppressed      rule default, codes" in first
    assert "1 recipient   while its first copy was under way  would_suppress  rule default" in second


def test_suppressed_gives_programs_an_object_a_line(place: Place) -> None:
    place.fill(record("000000000001", repeat("h:a")), record("000000000002", repeat("h:a", None)))
    one, other = map(json.loads, place.call("suppressed", "--json").stdout.splitlines())
    assert (one["id"], one["message_id"], one["from"]) == (
        *("000000000001", "<000000000001@example.test>", "h:1111111111111111"),
    )
    (recipient,) = one["recipients"]
    assert recipient["original"] | {"time": ""} == {
        "id": "aaaaaaaaaaaa",
        "message_id": "<first@example.test>",
        "reply": "2.0.0 Ok: queued as 4XYZ",
        "time": "",
    }
    assert (recipient["recipient"], recipient["outcome"], recipient["age_seconds"]) == ("h:a", "suppressed", 34.0)
    assert one["counted"] == {"default": ["Subject 1c9f03a2", "text/html 00112233"]}
    assert one["ignored"] == {"default": ["avideo: cache value of a thumbnail"]}
    assert other["recipients"][0]["original"] is None


def test_nothing_suppressed_is_said_so_and_no_error(place: Place) -> None:
    place.fill()
    told = place.call("suppressed", "--since", "90s")
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "nothing was suppressed in the last 90 s\n")
    told = place.call("suppressed", "--set", "record.keep_for=0", "--set", "record.keep=")
    assert told.stderr == "nothing was suppressed in the last 24 h; record.keep_for is 0, so nothing is recorded\n"


def test_a_damaged_record_is_counted_and_left_out(place: Place) -> None:
    place.fill(record("000000000001", repeat("h:a")), sent=[Note("x", '{"id":', 60.0), Note("y", "", 60.0)])
    told = place.call("suppressed")
    assert len(told.stdout.splitlines()) == 1
    assert told.stderr.startswith("warning: 2 damaged records are left out\n")


def test_what_others_have_said_moves_no_cursor(place: Place) -> None:
    nasty = Original("\x1b[2J", "<\x1b]0;x\x07>", "2.0.0 \r\n\x1b[31m \udcff", 1e300)
    place.fill(record("000000000001", repeat("h:\x1b", nasty, rule="\x1b"), message_id="\x1b\n", sender="\x9b"))
    for command in ("suppressed", "why 000000000001", "suppressed --json", "why --json 000000000001"):
        told = place.call(*command.split())
        assert told.exit_code == 0, told.output
        assert all(letter.isprintable() for letter in told.stdout.replace("\n", ""))


# relay why


@pytest.mark.parametrize("what", ["000000000001", "<000000000001@example.test>", "000000000001@example.test"])
def test_why_explains_a_suppressed_message(place: Place, what: str) -> None:
    place.fill(
        record("000000000001", repeat("h:a"), repeat("h:b"), repeat("h:c", OTHER, rule="codes")),
        record("000000000002", repeat("h:a")),
    )
    told = place.call("why", what)
    assert (told.exit_code, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert lines[0].startswith("000000000001  20")
    assert re.search(r"Z  \d+ min ago$", lines[0])
    rest = "\n".join(lines[1:])
    assert "  message     Message-ID <000000000001@example.test>, from h:1111111111111111\n" in rest
    assert "  suppressed  for 2 recipients: h:a, h:b\n  repeats     aaaaaaaaaaaa, 34 s older, accepted by" in rest
    assert "              Message-ID <first@example.test>; the upstream said: 2.0.0 Ok: queued as 4XYZ\n" in rest
    assert "  suppressed  for 1 recipient: h:c\n  repeats     bbbbbbbbbbbb, " in rest
    assert "  rule        codes\n" in rest
    assert "  equal in    Subject 1c9f03a2, text/html 00112233 (rule default)\n" in rest
    assert "  ignored     avideo: cache value of a thumbnail (rule default)\n" in rest
    assert lines[-1] == "  copy        not kept"
    assert "000000000002" not in told.stdout


@pytest.mark.parametrize("what", ["aaaaaaaaaaaa", "AAAAAAAAAAAA", "first@example.test", "<first@example.test>"])
def test_why_tells_which_copies_of_an_accepted_message_were_suppressed(place: Place, what: str) -> None:
    place.fill(
        record("000000000001", repeat("h:a"), repeat("h:c", OTHER)),
        record("000000000002", repeat("h:a")),
        record("000000000003", repeat("h:a", OTHER)),
    )
    told = place.call("why", what)
    head, one, two = told.stdout.split("\n\n")
    assert head.startswith("aaaaaaaaaaaa was accepted by the upstream at 20")
    assert head.endswith("the upstream said: 2.0.0 Ok: queued as 4XYZ\nIts copies were suppressed:")
    assert [text.split()[0] for text in (one, two)] == ["000000000001", "000000000002"]
    assert "bbbbbbbbbbbb" not in told.stdout


def test_why_finds_an_address_in_any_spelling_and_names_no_other(place: Place) -> None:
    names = [place.name(f"{who}@xn--bcher-kva.example") for who in ("alice", "bob")]
    place.fill(
        record("000000000001", *map(repeat, names)),
        record("000000000002", repeat(names[1])),
        record("000000000003", repeat("alice@xn--bcher-kva.example")),
    )
    told = place.call("why", "Alice@Bücher.example")
    assert [text.split()[0] for text in told.stdout.split("\n\n")] == ["000000000001", "000000000003"]
    assert told.stdout.count("  suppressed  for 1 recipient: Alice@Bücher.example\n") == 2
    assert place.call("why", names[0]).stdout.startswith("000000000001")


def test_why_says_what_was_only_observed(place: Place) -> None:
    seen = {"outcome": Outcome.WOULD_SUPPRESS}
    place.fill(record("000000000001", *(repeat(f"h:{number}", None, **seen) for number in range(7))))
    told = place.call("why", "000000000001").stdout
    assert (
        "forwarded   all the same, because it was only observed, to 7 recipients: h:0, h:1, h:2, h:3, h:4 and 2" in told
    )
    assert "  repeats     a message that was under way at that moment\n" in told


def test_why_gives_programs_an_object_a_line(place: Place) -> None:
    place.fill(record("000000000001", repeat("h:a")), record("000000000002", repeat("h:a")))
    told = place.call("why", "--json", "aaaaaaaaaaaa")
    assert [json.loads(line)["id"] for line in told.stdout.splitlines()] == ["000000000001", "000000000002"]


@pytest.mark.parametrize("what", ["0123456789ab", "<no@example.test>", "alice@example.test", "h:0000000000000000"])
def test_why_says_that_it_knows_nothing_and_how_long_it_would(place: Place, what: str) -> None:
    place.fill(record("000000000001", repeat("h:a"), message_id=""))
    told = place.call("why", "--set", "record.keep_for=7d", what)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: no suppression of {what} is recorded; records are kept for 7d. ")
    told = place.call("why", "--set", "record.keep_for=0", what)
    assert "record.keep_for is 0: none are kept" in told.stderr


def test_why_without_a_secret_says_what_that_means(place: Place) -> None:
    place.fill(record("000000000001", repeat("alice@example.test")))
    (place.folder / "record.key").unlink()
    assert place.call("why", "alice@example.test").exit_code == 0
    told = place.call("why", "bob@example.test")
    assert told.exit_code == 1
    assert "note: there is no record.secret_file here yet" in told.stderr
    assert not (place.folder / "record.key").exists()


def test_a_secret_that_cannot_be_read_ends_with_78(place: Place) -> None:
    place.fill()
    (place.folder / "record.key").write_text("short")
    told = place.call("why", "alice@example.test")
    assert told.exit_code == 78
    assert told.stderr.startswith(f"error: record.secret_file {place.folder}/record.key: its first line is shorter")


def test_why_tells_what_became_of_a_kept_copy(place: Place) -> None:
    name = place.keep.save("000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")))
    place.fill(record("000000000001", repeat("h:a"), kept=name), record("000000000002", repeat("h:a"), kept="gone"))

    def copy(id_: str, *flags: str) -> str:
        return place.call("why", *flags, id_).stdout.splitlines()[-1].removeprefix("  copy        ")

    assert copy("000000000001") == "kept; to deliver it after all: relay release 000000000001"
    assert copy("000000000002") == "was kept as gone and is gone"
    off = ("--set", "record.keep=")
    assert copy("000000000001", *off).endswith("record.keep no longer names where")
    found = place.keep.find("000000000001")
    assert found
    place.keep.mark_released(
        found, "000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")), [b"a@example.test"]
    )
    assert copy("000000000001") == "kept, and released already"


# relay forget


def test_forget_frees_an_accepted_message_for_all_its_recipients(place: Place) -> None:
    place.fill(sent=[place.sent("k1"), place.sent("k2"), place.sent("k3", OTHER)])
    told = place.call("forget", "aaaaaaaaaaaa")
    assert (told.exit_code, told.stdout, told.stderr) == (0, "forgot 2 acceptances\n", "")
    told = place.call("forget", "aaaaaaaaaaaa")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith("error: nothing that was sent is remembered for aaaaaaaaaaaa: ")
    assert place.call("forget", "other@example.test").stdout == "forgot 1 acceptance\n"


@pytest.mark.parametrize("what", ["000000000001", "000000000001@example.test"])
def test_forget_frees_what_a_message_was_suppressed_as(place: Place, what: str) -> None:
    place.fill(
        record("000000000001", repeat("h:a", fingerprint="k1")),
        record("000000000002", repeat("h:b", fingerprint="k2")),
        sent=[place.sent("k1"), place.sent("k2")],
    )
    assert place.call("forget", what).stdout == "forgot 1 acceptance\n"
    assert place.call("forget", "--all").stdout == "forgot 1 acceptance\n"
    assert place.call("why", "000000000001").exit_code == 0


@pytest.mark.parametrize("what", ["Alice@Example.test", "name"])
def test_forget_frees_a_recipient(place: Place, what: str) -> None:
    place.fill(sent=[place.sent(f"k{number}", to=f"{who}@example.test") for number, who in enumerate(["alice"] * 3)])
    place.fill(sent=[place.sent("k9", to="bob@example.test")])
    told = place.call("forget", place.name("alice@example.test") if what == "name" else what)
    assert told.stdout == "forgot 3 acceptances\n"


def test_forget_frees_what_is_younger_than_a_duration_or_all(place: Place) -> None:
    place.fill(sent=[place.sent(f"k{age}", age=age) for age in (1.0, 100.0, 400.0)])
    assert place.call("forget", "--since", "10s").stdout == "forgot 1 acceptance\n"
    assert place.call("forget", "--since", "5m", "--dry-run").stdout == "would forget 1 acceptance\n"
    assert place.call("forget", "--all", "--dry-run").stdout == "would forget 2 acceptances\n"
    assert place.call("forget", "--all").stdout == "forgot 2 acceptances\n"
    told = place.call("forget", "--all")
    assert (told.exit_code, told.stdout) == (0, "forgot 0 acceptances\n")


@pytest.mark.parametrize("arguments", ["", "0123456789ab --all", "--since 1h --all", "a@b --since 1h", "a@b c@d"])
def test_forget_takes_exactly_one_meaning(place: Place, arguments: str) -> None:
    place.fill(sent=[place.sent("k1")])
    told = place.call("forget", *arguments.split())
    assert told.exit_code == 2
    assert "Give one of these: " in told.stderr or "unexpected extra argument" in told.stderr
    assert place.call("forget", "--all").stdout == "forgot 1 acceptance\n"


@pytest.mark.parametrize("command", ["why", "forget"])
@pytest.mark.parametrize("what", ["", " "])
def test_nothing_is_asked_for_by_no_name(place: Place, command: str, what: str) -> None:
    told = place.call(command, what)
    assert (told.exit_code, told.stdout) == (2, "")
    assert "it is empty; write NAME@DOMAIN, the 12 hexadecimal digits of a record, or <MESSAGE-ID>" in told.stderr


@pytest.mark.parametrize("command", ["why", "forget"])
def test_what_is_neither_name_is_said_so(place: Place, command: str) -> None:
    told = place.call(command, "not-an-address")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "'not-an-address' is no address, id or Message-ID; write NAME@DOMAIN" in told.stderr
    assert place.call(command, "postmaster").exit_code == 1
    assert place.call(command, "<of-an-odd-sender>").exit_code == 1


@pytest.mark.parametrize("command", ["why", "forget"])
def test_what_is_not_found_is_named_as_text(place: Place, command: str) -> None:
    place.fill(sent=[place.sent("k1")])
    for what, status in (("\x1b]0;x\x07", 2), ("\x1b]0;x\x07@", 1)):
        told = place.call(command, what)
        assert told.exit_code == status
        assert "\\x1b]0;x\\x07" in told.stderr


@pytest.mark.parametrize("command", ["suppressed", "forget"])
def test_a_duration_that_is_none_is_named_with_its_mend(place: Place, command: str) -> None:
    told = place.call(command, "--since", "soon")
    assert told.exit_code == 2
    assert "Invalid value for '--since': not a duration; write for example \"10m\"" in told.stderr
    told = place.call(command, "--since", "-1h")
    assert told.exit_code == 2
    assert "Invalid value for '--since': negative; write \"1h\"" in told.stderr


# relay release, before anything is sent


def kept(place: Place, id_: str = "000000000001") -> Path:
    place.keep.save(id_, SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")))
    found = place.keep.find(id_)
    assert found
    return found.path


def test_release_says_why_there_is_no_copy(place: Place) -> None:
    told = place.call("release", "000000000001")
    assert told.exit_code == 1
    assert told.stderr.startswith(f"error: no copy of 000000000001 is kept in {place.folder}/kept; copies stay for 30d")
    told = place.call("release", "--set", "record.keep=", "000000000001")
    assert told.exit_code == 1
    assert told.stderr.startswith("error: record.keep is off, so no copy is kept; ")
    told = place.call("release", "a@example.test")
    assert told.exit_code == 2
    assert "not the id of a record" in told.stderr


def test_release_sends_no_copy_that_was_changed(place: Place) -> None:
    path = kept(place)
    path.write_bytes(path.read_bytes().replace(b"x\r\n", b"y\r\n"))
    told = place.call("release", "000000000001")
    assert told.exit_code == 1
    assert told.stderr == f"error: {path}: its content was changed, or cut short; it is not sent\n"


def test_release_sends_to_nobody_else(place: Place) -> None:
    kept(place)
    told = place.call("release", "000000000001", "--to", "A@example.test", "--to", "b@example.test")
    assert told.exit_code == 1
    assert told.stderr == "error: 000000000001 was not suppressed for b@example.test\n"


def test_release_marks_nothing_where_the_upstream_is_not_reached(place: Place) -> None:
    path = kept(place)
    nobody = ["--set", f"upstream.url=smtp://{HOST}:{free_port()}", "--set", "upstream.patience=0"]
    told = place.call("release", *nobody, "000000000001")
    assert told.exit_code == 1
    assert told.stdout.startswith("a@example.test  451 4.4.1 ")
    assert "error: not accepted for 1 of 1; to try again: relay release 000000000001\n" in told.stderr
    assert path.exists()


def test_release_sends_nothing_while_another_one_does(place: Place) -> None:
    path = kept(place)
    with place.keep.lock():
        told = place.call("release", "000000000001")
    assert told.exit_code == 1
    assert told.stderr == f"error: another relay release works in {place.folder}/kept; try again when it has ended\n"
    assert path.exists()


# Flags that all of them take


@pytest.mark.parametrize("command", [*COMMANDS, "release 000000000001"])
def test_the_store_may_be_named_as_for_the_relay(tmp_path: Path, command: str) -> None:
    name, *arguments = command.split()
    told = CliRunner().invoke(main, [name, "--store", "sqlte:x", *arguments])
    assert told.exit_code == 78
    assert 'store.url = "sqlte:x" (flag --store): ' in told.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "release 000000000001"])
def test_doubts_about_settings_are_for_those_who_run_the_relay(place: Place, command: str) -> None:
    place.fill()
    name, *arguments = command.split()
    assert "warning" not in place.call(name, "--set", "dedup.window=3s", *arguments).stderr


# Stores that cannot be asked


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    name, *arguments = command.split()
    url = f"sqlite:{tmp_path}/a/relay.db"
    told = CliRunner().invoke(main, [name, "--set", f"store.url={url}", *arguments])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: store.url {url}: No such file or directory; name the store of the relay")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "relay.db").write_bytes(b"no database at all" * 1000)
    name, *arguments = command.split()
    told = CliRunner().invoke(main, [name, "--set", f"store.url=sqlite:{tmp_path}/relay.db", *arguments])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: store.url sqlite:{tmp_path}/relay.db: it is not a database")
    assert told.stderr.endswith("; mend it, or correct store.url\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_redis_that_is_down_is_named(command: str) -> None:
    name, *arguments = command.split()
    url = f"redis://{HOST}:{free_port()}"
    told = CliRunner().invoke(main, [name, "--set", f"store.url={url}", *arguments])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: store.url {url}: ")
    assert told.stderr.endswith("; start it, or correct store.url\n")
    assert "Traceback" not in told.stderr


def test_a_redis_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"redis://{HOST}:{silent.getsockname()[1]}"
        told = CliRunner().invoke(main, ["why", "x@y", "--store", url, "--set", "store.timeout=100ms"])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == f"error: store.url {url}: no answer within 0.3 s; start it, or correct store.url\n"


# A relay that keeps its claims in memory


@pytest.mark.parametrize("command", COMMANDS)
def test_without_http_the_memory_of_a_relay_is_out_of_reach(command: str) -> None:
    name, *arguments = command.split()
    told = CliRunner().invoke(main, [name, "--set", "store.url=memory:", "--set", "http.address=", *arguments])
    assert told.exit_code == 1
    assert "error: store.url memory: is in the relay's own memory, and http.address is empty" in told.stderr
    told = CliRunner().invoke(
        main, [name, "--set", "store.url=memory:", "--set", f"http.address={HOST}:{free_port()}", *arguments]
    )
    assert told.exit_code == 1
    assert "does not answer: connection refused; with store.url memory: " in told.stderr
    assert "with store.url memory: it must be running, and on this host" in told.stderr


@contextlib.asynccontextmanager
async def http(memory: Store | None, host: str = HOST) -> AsyncIterator[str]:
    server = HttpServer(Metrics(), lambda: (True, {}), memory)
    port = await server.start(host, 0)
    try:
        yield f"{HOST}:{port}"
    finally:
        await server.close()


async def call(address: str, command: str, *arguments: str) -> Finished:
    flags = ["--set", "store.url=memory:", "--set", f"http.address={address}"]
    return await run_relay(command, *flags, *arguments)


async def test_commands_reach_the_memory_of_a_running_relay() -> None:
    store = MemoryStore()
    one = record("000000000001", repeat("alice@example.test", fingerprint="k1"))
    sent = [Confirm(Fingerprint(f"k{number}"), FIRST, 600.0, 0.0, "bob@example.test") for number in range(3)]
    await store.execute([Note(one.id, encode(one), DAY), *sent])
    async with http(store, "0.0.0.0") as loopback:
        address = loopback.replace(HOST, "0.0.0.0")
        told = await call(address, "suppressed")
        assert told.stdout.endswith("34 s after aaaaaaaaaaaa  suppressed  rule default\n")
        assert (await call(address, "why", "alice@example.test")).status == 0
        assert (await call(address, "why", "bob@example.test")).status == 1
        assert (await call(address, "forget", "Bob@example.test", "--dry-run")).stdout == "would forget 3 acceptances\n"
        assert (await call(address, "forget", "000000000001")).stdout == "forgot 1 acceptance\n"
        assert (await call(address, "forget", "--all")).stdout == "forgot 2 acceptances\n"


async def test_a_relay_with_another_store_offers_no_way_in() -> None:
    async with http(None) as address:
        told = await call(address, "forget", "--all")
        assert told.status == 1
        assert f"error: the relay at http.address {address} says 404: " in told.stderr
        assert "its own store.url is not memory:, then" in told.stderr


@contextlib.asynccontextmanager
async def no_relay(status: bytes, said: bytes) -> AsyncIterator[str]:
    """Something else that speaks HTTP, and says the same to all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(said), said))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("said", [b"{}", b"[]", b"0", b"free"])
async def test_what_is_no_relay_is_not_believed(said: bytes) -> None:
    async with no_relay(b"200 OK", said) as address:
        told = await call(address, "forget", "--all")
    assert (told.status, told.stdout) == (1, "")
    assert f"error: the relay at http.address {address} does not answer: it answers as no relay does" in told.stderr


async def test_what_is_no_relay_puts_nothing_on_the_terminal_but_a_little_text() -> None:
    async with no_relay(b"403 No", b"\x1b]0;x\x07" + b"go " * 5000) as address:
        told = await call(address, "suppressed")
    assert (told.status, told.stdout) == (1, "")
    assert f"error: the relay at http.address {address} says 403: \\x1b]0;x\\x07go go go " in told.stderr
    assert len(told.stderr) < 600


async def answer_to(address: str, method: str, path: str, **more: Any) -> int:
    async with aiohttp.ClientSession() as client, client.request(method, f"http://{address}{path}", **more) as answer:
        return answer.status


async def test_no_web_page_and_no_other_host_gets_in() -> None:
    store = MemoryStore()
    await store.execute([Confirm(Fingerprint("k1"), FIRST, 600.0)])
    everything = Selection(within=float("inf")).encode()
    post, get = ("POST", "/forget"), ("GET", "/records?age=60")
    async with http(store) as address:
        # Without the field: what a form or an image on any web page can send.
        assert await answer_to(address, *post, data=everything) == 403
        assert await answer_to(address, *get) == 403
        assert await answer_to(address, *post, data=everything, headers={COMMAND: "records"}) == 403
        assert await answer_to(address, "OPTIONS", "/forget", headers={"Origin": "http://evil.example"}) == 405
        # With it, under a name that its owner lets point here.
        for host in ("evil.example", f"evil.example:{address.rpartition(':')[2]}", "127.0.0.1.evil.example", "[::2]:1"):
            assert await answer_to(address, *post, data=everything, headers={COMMAND: "forget", "Host": host}) == 403
        # Through a proxy on this host.
        proxied = {COMMAND: "forget", "X-Forwarded-For": "192.0.2.1"}
        assert await answer_to(address, *post, data=everything, headers=proxied) == 403
        for host in ("localhost", "127.0.0.1", "[::1]:9625", "localhost:9625"):
            assert await answer_to(address, *get, headers={COMMAND: "records", "Host": host}) == 200
        assert await answer_to(address, *post, data=everything, headers={COMMAND: "forget"}) == 200


@pytest.mark.parametrize(
    "question", [b"", b"[]", b"{}", b"\xff", b'{"within": null}', b"[" * 100_000, Selection().encode().encode()[:-2]]
)
async def test_a_question_that_is_none_is_refused(question: bytes) -> None:
    async with http(MemoryStore()) as address:
        assert await answer_to(address, "POST", "/forget", data=question, headers={COMMAND: "forget"}) == 400


@pytest.mark.parametrize("age", ["", "?age=", "?age=soon", "?age=-1", "?age=nan"])
async def test_an_age_that_is_none_is_refused(age: str) -> None:
    async with http(MemoryStore()) as address:
        assert await answer_to(address, "GET", f"/records{age}", headers={COMMAND: "records"}) == 400
