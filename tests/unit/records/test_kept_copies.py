"""Kept copies: byte for byte, with their envelope, found by the id of their record, for nobody else to read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.content import Content
from relay.core.record import SuppressedCopy
from relay.records import copy_format as copies
from relay.records.copy_format import DamagedError
from relay.records.kept_copies import KeptCopies
from relay.runtime.files import make_maildir

if TYPE_CHECKING:
    from pathlib import Path

ID = "0123456789ab"
OTHER = "ba9876543210"
PATHS = (b"alice@example.test", "jos\xe9@b\xfccher.example".encode(), b'"a b"@example.test')
HOSTILE = [
    b"",
    b"\r\n",
    b"no header at all",
    b".\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\n",
    b"Subject: bare\r\n\r\na\rb\nc\r\rd\n\ne\r\n",
    b"Subject: lone dots\r\n\r\na\n.\nb\r.\rc\n.\rd\r\n",
    b"Subject: NUL\r\n\r\na\0b\0\r\n",
    bytes(range(256)) * 3 + b"\r\n",
    b"Subject: long\r\n\r\n" + b"x" * 100_000 + b"\r\n",
    (
        b"X-Relay-Record: ba9876543210\r\nReturn-Path: <evil@example.test>\r\nX-Original-To: <victim@example.test>\r\n"
        b"X-Relay-Content: 0 octets, blake2b 0000000000000000\r\n\r\nours\r\n"
    ),
]


def copy_of(plain: bytes, paths: tuple[bytes, ...] = PATHS) -> SuppressedCopy:
    return SuppressedCopy(b"s@example.test", paths, Content.from_plain(plain), (b"BODY=8BITMIME", b"SMTPUTF8"))


def seen(copy: SuppressedCopy) -> tuple[object, ...]:
    """Give what an upstream would see of it."""
    return copy.reverse_path, copy.paths, copy.parameters, copy.content.safe_wire


@pytest.mark.parametrize("plain", HOSTILE, ids=range(len(HOSTILE)))
def test_a_copy_comes_back_byte_for_byte(plain: bytes) -> None:
    copy = copy_of(plain)
    file = copies.encode(ID, copy)
    assert file.endswith(copy.content.plain)
    assert seen(copies.decode(file, ID)) == seen(copy)


@given(st.binary() | st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\0"]), max_size=20).map(b"".join))
def test_any_content_as_it_came_over_the_wire_comes_back(wire: bytes) -> None:
    copy = SuppressedCopy(
        b"", (b"a@example.test",), Content(wire if not wire or wire.endswith(b"\r\n") else wire + b"\r\n")
    )
    back = copies.decode(copies.encode(ID, copy), ID)
    assert back.content.plain == copy.content.plain
    assert back.content.safe_wire == Content.from_plain(copy.content.plain).safe_wire


def test_what_was_changed_is_not_taken_for_the_copy() -> None:
    file = copies.encode(ID, copy_of(b"Subject: x\r\n\r\nyour code is 1234\r\n"))
    damaged = [
        file.replace(b"1234", b"1235"),
        file + b"\r\n",
        file[:-1],
        b"Status: RO\r\n" + file.replace(b"X-Relay-Record", b"X-Relay-Recorx"),
        file.replace(b"<alice@example.test>", b"alice@example.test"),
        file.replace(b"X-Relay-Content", b"X-Relay-Contenx"),
        file[: len(file) // 2],
        b"",
    ]
    for octets in damaged:
        with pytest.raises(DamagedError):
            copies.decode(octets, ID)
    with pytest.raises(DamagedError):
        copies.decode(file, OTHER)


@given(st.binary())
def test_any_file_is_a_copy_or_damaged(octets: bytes) -> None:
    with pytest.raises(DamagedError):
        copies.decode(octets, ID)


def test_a_line_end_in_an_address_is_refused() -> None:
    for path in (b"a\r\nX-Original-To: <b@example.test>", b"a\nb", b"a\rb"):
        with pytest.raises(ValueError, match="line end"):
            copies.encode(ID, copy_of(b"x\r\n", (path,)))


# The Maildir


def test_a_copy_is_found_by_its_record(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path / "a" / "kept")
    names = {record: keep.save(record, copy_of(record.encode() + b"\r\n")) for record in (ID, OTHER)}
    found = keep.find(ID)
    assert found
    assert found.path == tmp_path / "a" / "kept" / "new" / names[ID]
    assert not found.released
    assert copies.decode(found.path.read_bytes(), ID).content.plain == ID.encode() + b"\r\n"
    assert keep.find("000000000000") is None
    assert KeptCopies(tmp_path / "nowhere").find(ID) is None


def test_only_the_relay_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keep = KeptCopies(tmp_path / "kept")
        keep.save(ID, copy_of(b"x\r\n"))
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [keep.path, *keep.path.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert [mode for path, mode in modes.items() if path.is_file()] == [0o600]


def test_what_was_released_says_so(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    keep.save(ID, copy_of(b"x\r\n"))
    for _ in range(2):
        found = keep.find(ID)
        assert found
        keep.mark_released(found, ID, copy_of(b"x\r\n"), PATHS)
    again = keep.find(ID)
    assert again
    assert (again.released, again.path.parent.name) == (True, "cur")
    assert again.path.name.endswith(":2,PS")
    assert copies.decode(again.path.read_bytes(), ID)


def test_a_part_of_the_recipients_is_remembered(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    keep.save(ID, copy_of(b"x\r\n"))
    found = keep.find(ID)
    assert found
    for paths, place in ((PATHS[1:2], "new"), (PATHS, "cur"), (PATHS[:2], "new"), ((), "new")):
        found = keep.mark_released(found, ID, copy_of(b"x\r\n"), paths)
        assert found == keep.find(ID)
        assert (found.released, found.path.parent.name) == (paths == PATHS, place)
        octets = found.path.read_bytes()
        assert copies.released(octets) == set(paths)
        assert seen(copies.decode(octets, ID)) == seen(copy_of(b"x\r\n"))
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_copy_that_a_mail_reader_has_moved_is_found_and_not_taken_for_released(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    keep.save(ID, copy_of(b"x\r\n"))
    found = keep.find(ID)
    assert found
    found.path.rename(tmp_path / "cur" / f"{found.path.name}:2,S")
    found = keep.find(ID)
    assert found
    assert not found.released
    keep.mark_released(found, ID, copy_of(b"x\r\n"), PATHS)
    assert [path.name.rpartition(":")[2] for path in (tmp_path / "cur").iterdir()] == ["2,PS"]


def test_a_sweep_clears_what_is_old_and_ours(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    keep.save(ID, copy_of(b"x\r\n"))
    found = keep.find(ID)
    assert found
    for number in range(10):
        for folder in ("tmp", "new", "cur"):
            (tmp_path / folder / f"{1_700_000_000 + number}.R{number:012x}U00000000.host").touch()
    (tmp_path / "cur" / "1700000000.M1P2.host:2,S").touch()
    (tmp_path / "notes").touch()
    assert keep.sweep(1_700_000_005, most=4) == 4
    assert keep.sweep(1_700_000_005) == 11
    assert keep.sweep(1_700_000_005) == 0
    assert sum(len(list((tmp_path / folder).iterdir())) for folder in ("tmp", "new", "cur")) == 15 + 1 + 1
    assert keep.sweep(found.at + 1) == 16
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["1700000000.M1P2.host:2,S", "notes"]


def test_a_folder_that_cannot_be_used_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        KeptCopies(tmp_path / "file" / "kept").save(ID, copy_of(b"x\r\n"))
    # Where nothing can be moved to, nothing is left behind.
    make_maildir(tmp_path / "kept")
    (tmp_path / "kept" / "new").rmdir()
    (tmp_path / "kept" / "new").symlink_to("/proc/self")
    with pytest.raises(OSError, match=r"."):
        KeptCopies(tmp_path / "kept").save(ID, copy_of(b"x\r\n"))
    assert list((tmp_path / "kept" / "tmp").iterdir()) == []
