"""`relay why`, on stores that the tests have filled."""

from __future__ import annotations

import json
import re

import pytest
from parts.store_folder import FIRST, NOW, OTHER, StoreFolder, record, repeat

from relay.core.content import Content
from relay.core.outcome import Outcome
from relay.core.record import SuppressedCopy
from relay.core.trace import RecipientTrace, Step, Trace, TraceOutcome


def accepted(id_: str = FIRST.id, *recipients: str, reply: str = "250 2.0.0 Ok: queued as 4XYZ") -> Trace:
    """Returns the trace of a message that the upstream accepted."""
    names = recipients or ("h:a",)
    forwarded = tuple(RecipientTrace(name, TraceOutcome.FORWARDED, reply, "default") for name in names)
    return record(
        id_,
        *forwarded,
        at=NOW - 155,
        message_id=FIRST.message_id,
        reply=reply,
        upstream="mta:25",
        seconds=1.0,
        size=4213,
    )


NAMES = ["000000000001", "000000000001 ", "<000000000001@example.test>", "000000000001@example.test"]
NAMES_OF_THE_FIRST = ["aaaaaaaaaaaa", "AAAAAAAAAAAA", "first@example.test", "<first@example.test>", "4XYZ"]


@pytest.mark.parametrize("what", [*NAMES, *NAMES_OF_THE_FIRST])
def test_the_time_line_has_the_first_copy_and_its_repeats(folder: StoreFolder, what: str) -> None:
    folder.fill(
        accepted(),
        record("000000000001", repeat("h:a"), repeat("h:b")),
        record("000000000002", repeat("h:a"), at=NOW - 60),
        record("000000000003", repeat("h:c", OTHER)),
    )
    result = folder.call("why", what)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "Message-ID <first@example.test>, from h:1111111111111111"
    events = [line.split(maxsplit=1)[1].strip() for line in lines[1:] if line.startswith("  20")]
    assert events == [
        "aaaaaaaaaaaa  came from an unknown client, 4.1 KiB, for 1 recipient",
        "+1 s      aaaaaaaaaaaa  forwarded to h:a",
        "+35 s     000000000001  came from an unknown client, 0 B, for 2 recipients",
        "+35 s     000000000001  suppressed for h:a, h:b",
        "+1.6 min  000000000002  came from an unknown client, 0 B, for 1 recipient",
        "+1.6 min  000000000002  suppressed for h:a",
    ]
    details = [line.strip() for line in lines if line.startswith(" " * 48)]
    assert details[:8] == [
        "reply     250 2.0.0 Ok: queued as 4XYZ (from mta:25)",
        "rule      default",
        "repeats   aaaaaaaaaaaa, accepted 34 s before",
        "reply     2.0.0 Ok: queued as 4XYZ (to aaaaaaaaaaaa)",
        "equal in  Subject 1c9f03a2, text/html 00112233",
        "ignored   avideo: cache value of a thumbnail",
        "rule      default",
        "copy      not kept",
    ]


def test_a_repeat_whose_first_copy_has_no_trace_is_explained(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("h:a")))
    result = folder.call("why", "000000000001")
    assert "  repeats   aaaaaaaaaaaa, accepted 34 s before\n" in result.stdout
    assert "  reply     2.0.0 Ok: queued as 4XYZ (to aaaaaaaaaaaa)\n" in result.stdout


def test_an_address_is_found_in_any_spelling_and_called_as_written(folder: StoreFolder) -> None:
    names = [folder.name(f"{who}@xn--bcher-kva.example") for who in ("alice", "bob")]
    folder.fill(
        accepted("00000000000a", names[1], names[0]),
        accepted("00000000000b", names[1]),
        accepted("00000000000c", "alice@xn--bcher-kva.example"),
    )
    result = folder.call("why", "Alice@Bücher.example")
    assert re.findall(r"0000000000\w\w  forwarded.*", result.stdout) == [
        f"00000000000a  forwarded to Alice@Bücher.example, {names[1]}",
        "00000000000c  forwarded to Alice@Bücher.example",
    ]
    assert folder.call("why", names[0]).stdout.count("forwarded to") == 1


@pytest.mark.parametrize(
    ("outcome", "reply", "line", "detail"),
    [
        ("refused", "550 5.1.1 unknown", "refused for h:a", "reply     550 5.1.1 unknown (from mta:25)"),
        ("deferred", "451 4.4.1 later", "deferred for h:a", "reply     451 4.4.1 later"),
        ("uncertain", "451 4.4.2 unknown", "uncertain for h:a", "reply     451 4.4.2 unknown"),
        ("rcpt_refused", "550 5.1.1 no", "refused at RCPT: h:a", "reply     550 5.1.1 no"),
        ("aborted", "250 2.1.5 Ok", "ended by the client before the content, for h:a", ""),
    ],
)
def test_other_outcomes_are_told_with_their_replies(
    folder: StoreFolder, outcome: str, reply: str, line: str, detail: str
) -> None:
    folder.fill(record("000000000001", RecipientTrace("h:a", TraceOutcome(outcome), reply), upstream="mta:25"))
    lines = folder.call("why", "000000000001").stdout.splitlines()
    assert lines[2].endswith(f"000000000001  {line}")
    assert [each.strip() for each in lines[3:]] == ([detail] if detail else [])


def test_an_observed_repeat_is_shown_as_forwarded(folder: StoreFolder) -> None:
    seen = {"outcome": Outcome.WOULD_SUPPRESS}
    folder.fill(record("000000000001", *(repeat(f"h:{number}", None, **seen) for number in range(7))))
    result = folder.call("why", "000000000001").stdout
    assert "  forwarded, because it was only observed, to h:0, h:1, h:2, h:3, h:4 and" in result
    assert "  repeats   a message that was under way at that moment\n" in result


def test_slow_steps_are_named(folder: StoreFolder) -> None:
    steps = {Step.WAIT: 12.3, Step.JUDGE: 0.001, Step.DELIVER: 4.0}
    folder.fill(record("000000000001", RecipientTrace("h:a", TraceOutcome.DEFERRED, "451 4.4.5"), steps=steps))
    shown = folder.call("why", "000000000001").stdout
    assert "  took      wait for an equal message 12.3 s, upstream 4.0 s\n" in shown


def test_the_latest_of_many_mails_are_shown(folder: StoreFolder) -> None:
    folder.fill(*(accepted(f"{number:012x}", "h:a") for number in range(30)))
    lines = folder.call("why", "h:a").stdout.splitlines()
    assert lines[0] == "The latest 20; relay log --to ADDRESS lists all."
    assert sum("forwarded to" in line for line in lines) == 20


def test_control_characters_are_escaped(folder: StoreFolder) -> None:
    hostile = "\x1b]0;x\x07\u202e"
    traced = RecipientTrace(hostile, TraceOutcome.REFUSED, f"550 {hostile}", hostile)
    folder.fill(record("000000000001", traced, message_id=hostile, sender=hostile, helo=hostile, subject=hostile))
    shown = folder.call("why", "000000000001").stdout
    assert shown.count("\\x1b]0;x\\x07") == 7
    assert not {"\x1b", "\x07", "\u202e"} & {*shown}
    assert "\x1b" not in folder.call("log", "--since", "1d").stdout
    result = folder.call("why", hostile)
    assert result.exit_code == 0
    result = folder.call("why", "\x1b]0;y")
    assert result.stderr.startswith("error: no message \\x1b]0;y is known; ")


@pytest.mark.parametrize("what", ["", " ", "x" * 1001])
def test_an_empty_or_endless_argument_is_an_error(folder: StoreFolder, what: str) -> None:
    result = folder.call("why", what)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "; write an address, an id, a <MESSAGE-ID> or a queue id" in result.stderr


def test_json_is_one_object_per_line(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("h:a")), record("000000000002", repeat("h:a")))
    result = folder.call("why", "--json", "aaaaaaaaaaaa")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["000000000001", "000000000002"]


@pytest.mark.parametrize("what", ["0123456789ab", "<no@example.test>", "alice@example.test", "h:0000000000000000"])
def test_a_missing_record_is_reported_with_how_long_records_stay(folder: StoreFolder, what: str) -> None:
    folder.fill(record("000000000001", repeat("h:a"), message_id=""))
    result = folder.call("why", "--set", "record.keep_for=7d", what)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no message {what} is known; traces are kept for 7d")
    result = folder.call("why", "--set", "record.keep_for=0", what)
    assert "record.keep_for is 0: none are kept" in result.stderr
    result = folder.call("why", "--set", "record.trace=repeats", what)
    assert 'traces are kept for 30d, and only of repeats (record.trace = "repeats")' in result.stderr


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
    folder.fill(
        record("000000000001", repeat("h:a"), kept=name), record("000000000002", repeat("h:a", OTHER), kept="gone")
    )

    def copy(id_: str, *flags: str) -> str:
        return folder.call("why", *flags, id_).stdout.splitlines()[-1].strip().removeprefix("copy      ")

    assert copy("000000000001") == "kept; to deliver it after all: relay release 000000000001"
    assert copy("000000000002") == "was kept as gone and is gone"
    off = ("--set", "record.keep=")
    assert copy("000000000001", *off).endswith("no longer names where")
    found = folder.keep.find("000000000001")
    assert found
    folder.keep.mark_released(
        found, "000000000001", SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")), [b"a@example.test"]
    )
    assert copy("000000000001") == "kept, and released already"
