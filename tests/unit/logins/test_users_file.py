"""The users file: its form, its changes by several commands at once, and its verification by a relay."""

from __future__ import annotations

import os
import stat
import threading
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest
from parts.logged import events

from relay.core.login import Credentials, Login
from relay.core.reply import LOGIN_REFUSED, LOGIN_UNAVAILABLE
from relay.logins.passwords import NO_USER, check_hash, hash_password, matches
from relay.logins.users import FileAuthenticator
from relay.logins.users_file import User, change_users, check_name, check_sender, read_users
from relay.runtime.files import remove

if TYPE_CHECKING:
    from pathlib import Path

HASH = hash_password(b"s3cret")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users"


def write(file: Path, text: str) -> None:
    file.write_text(text)


def add(file: Path, user: User) -> None:
    change_users(file, lambda users: users.__setitem__(user.name, user))


def test_a_file_is_read_as_it_was_written(file: Path) -> None:
    written = [User("anna", HASH), User("Bert @ home", HASH, ("b@example.org", "@example.net"))]
    for user in written:
        add(file, user)
    assert list(read_users(file).values()) == written
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["users"]


def test_a_file_keeps_its_mode_without_the_rights_of_others(file: Path) -> None:
    add(file, User("anna", HASH))
    file.chmod(0o644)
    add(file, User("bert", HASH))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_that_root_writes_belongs_to_the_owner_of_its_folder(file: Path) -> None:
    os.chown(file.parent, 12345, 23456)
    for _ in range(2):
        add(file, User("anna", HASH))
        found = file.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o600)


def test_changes_at_the_same_time_are_all_kept(file: Path) -> None:
    threads = [threading.Thread(target=add, args=(file, User(f"user {number}", HASH))) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_users(file)) == 20


def test_a_change_that_fails_leaves_the_file(file: Path) -> None:
    add(file, User("anna", HASH))

    def change(users: dict[str, User]) -> None:
        users.clear()
        raise KeyError

    with pytest.raises(KeyError):
        change_users(file, change)
    assert list(read_users(file)) == ["anna"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anna", "line 1: not NAME:HASH"),
        ("# comment\n\nanna:s3cret", "line 3: not an argon2id hash; write the line with relay user add"),
        (f"anna:{HASH}\nanna:{HASH}", "line 2: this name has a line already"),
        (f"anna:{HASH}:boss", 'line 1: "boss" is not a sender; write an address'),
        (f" anna:{HASH}", "line 1: a name has no"),
        (f"anna:{HASH.replace('m=19456', 'm=999999')}", "line 1: the hash takes too much memory or time"),
        (f"anna:{HASH.replace('t=2', 't=99')}", "line 1: the hash takes too much memory or time"),
        ("x" * (4 * 1024 * 1024 + 1), "larger than 4194304 bytes"),
    ],
)
def test_a_wrong_line_is_named_and_no_secret(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        read_users(file)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a\n", "x" * 256])
def test_names_that_a_line_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name"):
        check_name(name)


@pytest.mark.parametrize("sender", ["a", "a@", "a@b,c@d", "<a@b>", "a@b:c"])
def test_senders_that_a_line_cannot_hold_are_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="not a sender"):
        check_sender(sender)


def test_hashes_match_their_password_only() -> None:
    check_hash(HASH)
    check_hash(NO_USER)
    assert matches(HASH, b"s3cret")
    assert not matches(HASH, b"wrong")
    assert hash_password(b"s3cret") != HASH
    assert "s3cret" not in repr(User("anna", HASH))
    assert HASH not in repr(User("anna", HASH))


async def log_in(logins: FileAuthenticator, name: str, password: bytes) -> object:
    return await logins.log_in(Credentials(name, password), "192.0.2.1", trusted=False)


async def test_a_changed_file_is_used_at_once_and_a_broken_one_is_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(file, User("anna", HASH, ("A@Example.org",)))
    logins = FileAuthenticator(file)
    assert await log_in(logins, "anna", b"s3cret") == Login("anna", ("a@example.org",))
    assert await log_in(logins, "anna", b"wrong") == LOGIN_REFUSED
    assert await log_in(logins, "bert", b"s3cret") == LOGIN_REFUSED
    add(file, User("bert", HASH))
    assert await log_in(logins, "bert", b"s3cret") == Login("bert")
    write(file, "bert:s3cret\n")
    for _ in range(3):
        assert await log_in(logins, "bert", b"s3cret") == Login("bert")
    remove(file)
    assert await log_in(logins, "bert", b"s3cret") == Login("bert")
    kept = [fields for _, text, fields in events(caplog) if "the users before are kept" in text]
    assert [fields["path"] for fields in kept] == [str(file)] * 2
    change_users(file, lambda users: users.update(anna=User("anna", HASH)))
    assert await log_in(logins, "bert", b"s3cret") == LOGIN_REFUSED
    assert "s3cret" not in f"{caplog.text} {events(caplog)}"
    logins.close()


async def test_an_unknown_name_takes_as_long_as_a_known_one(file: Path) -> None:
    add(file, User("anna", HASH))
    logins = FileAuthenticator(file)
    seconds: dict[str, list[float]] = {"anna": [], "bert": []}
    for _ in range(5):
        for name, times in seconds.items():
            began = time.perf_counter()
            assert await log_in(logins, name, b"wrong") == LOGIN_REFUSED
            times.append(time.perf_counter() - began)
    known, unknown = (median(times) for times in seconds.values())
    assert known / 3 < unknown < known * 3
    logins.close()


async def test_a_login_that_waits_too_long_is_deferred(file: Path) -> None:
    add(file, User("anna", HASH))
    logins = FileAuthenticator(file, longest_wait=0.0)
    assert await log_in(logins, "anna", b"s3cret") == LOGIN_UNAVAILABLE
    logins.close()
