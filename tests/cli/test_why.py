"""`relay why`, on stores that the tests have filled."""

from __future__ import annotations

import json
import re

import pytest
from parts.store_folder import OTHER, StoreFolder, record, repeat

from relay.core.content import Content
from relay.core.outcome import Outcome
from relay.core.record import SuppressedCopy


@pytest.mark.parametrize("what", ["000000000001", "<000000000001@example.test>", "000000000001@example.test"])
def test_a_suppressed_message_is_explained(folder: StoreFolder, what: str) -> None:
    folder.fill(
        record("000000000001", repeat("h:a"), repeat("h:b"), repeat("h:c", OTHER, rule="codes")),
        record("000000000002", repeat("h:a")),
    )
    result = folder.call("why", what)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
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
    assert "000000000002" not in result.stdout


@pytest.mark.parametrize("what", ["aaaaaaaaaaaa", "AAAAAAAAAAAA", "first@example.test", "<first@example.test>"])
def test_an_accepted_message_lists_its_suppressed_copies(folder: StoreFolder, what: str) -> None:
    folder.fill(
        record("000000000001", repeat("h:a"), repeat("h:c", OTHER)),
        record("000000000002", repeat("h:a")),
        record("000000000003", repeat("h:a", OTHER)),
    )
    result = folder.call("why", what)
    head, one, two = result.stdout.split("\n\n")
    assert head.startswith("aaaaaaaaaaaa was accepted by the upstream at 20")
    assert head.endswith("the upstream said: 2.0.0 Ok: queued as 4XYZ\nIts copies were suppressed:")
    assert [text.split()[0] for text in (one, two)] == ["000000000001", "000000000002"]
    assert "bbbbbbbbbbbb" not in result.stdout


def test_an_address_is_found_in_any_spelling_and_no_other_is_shown(folder: StoreFolder) -> None:
    names = [folder.name(f"{who}@xn--bcher-kva.example") for who in ("alice", "bob")]
    folder.fill(
        record("000000000001", *map(repeat, names)),
        record("000000000002", repeat(names[1])),
        record("000000000003", repeat("alice@xn--bcher-kva.example")),
    )
    result = folder.call("why", "Alice@Bücher.example")
    assert [text.split()[0] for text in result.stdout.split("\n\n")] == ["000000000001", "000000000003"]
    assert result.stdout.count("  suppressed  for 1 recipient: Alice@Bücher.example\n") == 2
    assert folder.call("why", names[0]).stdout.startswith("000000000001")


def test_an_observed_repeat_is_shown_as_forwarded(folder: StoreFolder) -> None:
    seen = {"outcome": Outcome.WOULD_SUPPRESS}
    folder.fill(record("000000000001", *(repeat(f"h:{number}", None, **seen) for number in range(7))))
    result = folder.call("why", "000000000001").stdout
    assert (
        "forwarded   all the same, because it was only observed, to 7 recipients: h:0, h:1, h:2, h:3, h:4 and 2"
        in result
    )
    assert "  repeats     a message that was under way at that moment\n" in result


def test_json_is_one_object_per_line(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("h:a")), record("000000000002", repeat("h:a")))
    result = folder.call("why", "--json", "aaaaaaaaaaaa")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["000000000001", "000000000002"]


@pytest.mark.parametrize("what", ["0123456789ab", "<no@example.test>", "alice@example.test", "h:0000000000000000"])
def test_a_missing_record_is_reported_with_how_long_records_stay(folder: StoreFolder, what: str) -> None:
    folder.fill(record("000000000001", repeat("h:a"), message_id=""))
    result = folder.call("why", "--set", "record.keep_for=7d", what)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no suppression of {what} is recorded; records are kept for 7d. ")
    result = folder.call("why", "--set", "record.keep_for=0", what)
    assert "record.keep_for is 0: none are kept" in result.stderr


def test_a_missing_secret_is_reported_and_not_created(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("alice@example.test")))
    (folder.path / "record.key").unlink()
    assert folder.call("why", "alice@example.test").exit_code == 0
    result = folder.call("why", "bob@example.test")
    assert result.exit_code == 1
    assert "note: there is no record.secret_file here yet" in result.stderr
    assert not (folder.path / "record.key").exists()


def test_a_secret_that_cannot_be_read_ends_with_78(folder: StoreFolder) -> None:
    folder.fill()
    (folder.path / "record.key").write_text("short")
    result = folder.call("why", "alice@example.test")
    assert result.exit_code == 78
    assert result.stderr.startswith(f"error: record.secret_file {folder.path}/record.key: its first line is shorter")


def test_the_state_of_the_kept_copy_is_shown(folder: StoreFolder) -> None:
    name = folder.keep.save("000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")))
    folder.fill(record("000000000001", repeat("h:a"), kept=name), record("000000000002", repeat("h:a"), kept="gone"))

    def copy(id_: str, *flags: str) -> str:
        return folder.call("why", *flags, id_).stdout.splitlines()[-1].removeprefix("  copy        ")

    assert copy("000000000001") == "kept; to deliver it after all: relay release 000000000001"
    assert copy("000000000002") == "was kept as gone and is gone"
    off = ("--set", "record.keep=")
    assert copy("000000000001", *off).endswith("record.keep no longer names where")
    found = folder.keep.find("000000000001")
    assert found
    folder.keep.mark_released(
        found, "000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")), [b"a@example.test"]
    )
    assert copy("000000000001") == "kept, and released already"
