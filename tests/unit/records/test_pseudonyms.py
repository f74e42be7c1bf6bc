"""How addresses stand in records, and the secret behind it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat
from typing import TYPE_CHECKING

import pytest
from parts.logged import events

from relay.core.envelope import fold
from relay.core.errors import SettingsError
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import ensure_secret, find_secret

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"0" * 64
ALICE = fold(b"alice@example.test")


# Names


def test_a_hashed_name_is_the_same_for_all_who_have_the_secret() -> None:
    name = Pseudonyms(SECRET, plain=False)(ALICE)
    assert name == Pseudonyms(SECRET, plain=False)(ALICE) == "h:0f67736d61e55a84"
    assert name != Pseudonyms(b"1" * 64, plain=False)(ALICE)
    assert name != Pseudonyms(SECRET, plain=False)(fold(b"alicf@example.test"))


def test_plain_names_are_addresses() -> None:
    assert Pseudonyms(SECRET, plain=True)(ALICE) == "alice@example.test"


def test_the_null_reverse_path_has_no_name() -> None:
    assert [Pseudonyms(SECRET, plain=plain)(fold(b"")) for plain in (False, True)] == ["", ""]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "written",
    ["alice@example.test", "Alice@EXAMPLE.test", "<alice@example.test>", ' "alice"@example.test. '],
)
def test_an_address_is_found_in_any_spelling_and_however_it_was_written(written: str, plain: bool) -> None:
    for now in (False, True):
        assert Pseudonyms(SECRET, plain=plain)(ALICE) in Pseudonyms(SECRET, plain=now).find(written)


def test_a_name_finds_itself() -> None:
    assert Pseudonyms(SECRET, plain=False).find("h:0123456789abcdef") == {"h:0123456789abcdef"}


def test_an_address_that_is_no_text_has_a_name_too() -> None:
    names = Pseudonyms(SECRET, plain=False)
    recipient = fold(b"\xff\xfe@example.test")
    assert names(recipient) in names.find(os.fsdecode(b"\xff\xfe@example.test"))


def test_what_an_upstream_has_said_loses_its_addresses() -> None:
    said = "2.0.0 <alice@example.test> queued as 4XYZ"
    assert Pseudonyms(SECRET, plain=False).redact(said) == "2.0.0 <address> queued as 4XYZ"
    assert Pseudonyms(SECRET, plain=True).redact(said) == said


# The secret


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "record.key"
    secret = ensure_secret(None, path)
    assert len(bytes.fromhex(secret.decode())) == 32
    assert ensure_secret(None, path) == ensure_secret(path, None) == find_secret(None, path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["record.key"]


def test_a_named_file_beats_the_default_one(tmp_path: Path) -> None:
    named, default = tmp_path / "named", tmp_path / "default"
    named.write_text("x" * 32 + "\n# the same on mail1 and mail2\n")
    assert ensure_secret(named, default) == find_secret(named, default) == b"x" * 32
    assert not default.exists()


def test_looking_makes_none(tmp_path: Path) -> None:
    assert find_secret(None, tmp_path / "record.key") is None
    assert find_secret(tmp_path / "record.key", None) is None
    assert find_secret(None, None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "short\n", "\n" + "x" * 64])
def test_a_secret_that_is_too_short_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.key"
    path.write_text(content)
    for use in (ensure_secret, find_secret):
        with pytest.raises(SettingsError, match=rf"record.secret_file {path}: its first line is shorter than 32"):
            use(path, None)


def test_a_named_file_that_cannot_be_had_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="Not a directory; name a file that this user may read"):
        ensure_secret(tmp_path / "file" / "record.key", None)
    with pytest.raises(SettingsError, match="Is a directory; name a file"):
        find_secret(tmp_path, None)


def test_without_a_place_the_secret_is_for_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "relay"):
        found = {ensure_secret(None, tmp_path / "file" / "record.key"), ensure_secret(None, None)}
    assert [len(secret) for secret in found] == [32, 32]
    missing, unusable = sorted((fields["error"] for *_, fields in events(caplog)), reverse=True)
    assert missing == "there is no state folder"
    assert "Not a directory" in unusable


def test_processes_that_begin_together_end_with_one_secret(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        secrets = set(pool.starmap(ensure_secret, [(None, tmp_path / "record.key")] * 16, chunksize=1))
    assert len(secrets) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["record.key"]
