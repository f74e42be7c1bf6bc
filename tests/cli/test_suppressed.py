"""`relay suppressed`, on stores that the tests have filled."""

from __future__ import annotations

import json
import sqlite3
import time

from parts.store_folder import OTHER, StoreFolder, record, repeat

from relay.core.claim import Original
from relay.core.outcome import Outcome


def test_each_record_is_a_line_and_the_latest_is_last(folder: StoreFolder) -> None:
    early = record("000000000001", repeat("h:a"), repeat("h:b"))
    late = record("000000000002", repeat("h:a", OTHER, age=300.0, outcome=Outcome.WOULD_SUPPRESS, rule="codes"))
    folder.fill(early, late)
    result = folder.call("suppressed")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.split("  ")[1:3] == ["000000000001", "2 recipients"]
    assert first.endswith("  34 s after aaaaaaaaaaaa   suppressed      rule default")
    assert second.endswith("  5 min after bbbbbbbbbbbb  would_suppress  rule codes")
    assert result.stderr == "2 messages to 3 recipients in the last 24 h\n"


def test_several_originals_are_counted_and_a_missing_one_is_explained(folder: StoreFolder) -> None:
    folder.fill(
        record("000000000001", repeat("h:a"), repeat("h:b", OTHER, rule="codes")),
        record("000000000002", repeat("h:a", None, outcome=Outcome.WOULD_SUPPRESS)),
    )
    first, second = folder.call("suppressed").stdout.splitlines()
    assert "2 recipients  34 s after aaaaaaaaaaaa and 1 more  suppressed      rule default, codes" in first
    assert "1 recipient   while its first copy was under way  would_suppress  rule default" in second


def test_json_is_one_object_per_line(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("h:a")), record("000000000002", repeat("h:a", None)))
    one, other = map(json.loads, folder.call("suppressed", "--json").stdout.splitlines())
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


def test_nothing_suppressed_is_reported_and_no_error(folder: StoreFolder) -> None:
    folder.fill()
    result = folder.call("suppressed", "--since", "90s")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing was suppressed in the last 1.5 min\n")
    result = folder.call("suppressed", "--set", "record.keep_for=0", "--set", "record.keep=")
    assert result.stderr == "nothing was suppressed in the last 24 h; record.keep_for is 0, so no traces are kept\n"


def test_a_damaged_record_is_counted_and_left_out(folder: StoreFolder) -> None:
    folder.fill(record("000000000001", repeat("h:a")))
    damaged = f'\n[{time.time() * 1000:.0f},"x",["suppressed",'.encode()
    with sqlite3.connect(folder.path / "relay.trace.db") as connection:
        connection.execute("UPDATE batches SET lines = CAST(lines || ? AS BLOB)", (damaged * 2,))
        connection.execute("UPDATE segments SET entries = entries + 2, last_at = 9e9")
    connection.close()
    result = folder.call("suppressed")
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith("warning: 2 traces cannot be read and are left out\n")


def test_control_characters_in_records_are_escaped(folder: StoreFolder) -> None:
    nasty = Original("\x1b[2J", "<\x1b]0;x\x07>", "2.0.0 \r\n\x1b[31m \udcff", 1e300)
    folder.fill(record("000000000001", repeat("h:\x1b", nasty, rule="\x1b"), message_id="\x1b\n", sender="\x9b"))
    for command in ("suppressed", "why 000000000001", "suppressed --json", "why --json 000000000001"):
        result = folder.call(*command.split())
        assert result.exit_code == 0, result.output
        assert all(letter.isprintable() for letter in result.stdout.replace("\n", ""))
