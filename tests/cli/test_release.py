"""`relay release`, up to the point where a copy is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts.ports import HOST, free_port

from relay.core.content import Content
from relay.core.record import SuppressedCopy

if TYPE_CHECKING:
    from pathlib import Path

    from parts.store_folder import StoreFolder


def kept(folder: StoreFolder, id_: str = "000000000001") -> Path:
    folder.keep.save(id_, SuppressedCopy(b"", (b"a@example.test",), Content(b"x\r\n")))
    found = folder.keep.find(id_)
    assert found
    return found.path


def test_a_missing_copy_is_explained(folder: StoreFolder) -> None:
    result = folder.call("release", "000000000001")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: no copy of 000000000001 is kept in {folder.path}/kept; copies stay for 30d"
    )
    result = folder.call("release", "--set", "record.keep=", "000000000001")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: record.keep is off, so no copy is kept; ")
    result = folder.call("release", "a@example.test")
    assert result.exit_code == 2
    assert "not the id of a trace" in result.stderr


def test_a_changed_copy_is_not_sent(folder: StoreFolder) -> None:
    path = kept(folder)
    path.write_bytes(path.read_bytes().replace(b"x\r\n", b"y\r\n"))
    result = folder.call("release", "000000000001")
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}: its content was changed or truncated; it is not sent\n"


def test_a_recipient_who_missed_nothing_is_refused(folder: StoreFolder) -> None:
    kept(folder)
    result = folder.call("release", "000000000001", "--to", "A@example.test", "--to", "b@example.test")
    assert result.exit_code == 1
    assert result.stderr == "error: 000000000001 was not suppressed for b@example.test\n"


def test_an_unreachable_upstream_leaves_the_copy_unreleased(folder: StoreFolder) -> None:
    path = kept(folder)
    unreachable = ["--set", f"upstream.url=smtp://{HOST}:{free_port()}", "--set", "upstream.patience=0"]
    result = folder.call("release", *unreachable, "000000000001")
    assert result.exit_code == 1
    assert result.stdout.startswith("a@example.test  451 4.4.1 ")
    assert "error: not accepted for 1 of 1; to try again: relay release 000000000001\n" in result.stderr
    assert path.exists()


def test_only_one_release_works_at_a_time(folder: StoreFolder) -> None:
    path = kept(folder)
    with folder.keep.lock():
        result = folder.call("release", "000000000001")
    assert result.exit_code == 1
    assert result.stderr == f"error: another relay release works in {folder.path}/kept; try again when it has ended\n"
    assert path.exists()
