"""The client of the admin API, and what it makes of a socket on which no relay answers as it should."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from parts.admin_sockets import PROCESS, answer_of, listening

from relay.admin.client import running_relay
from relay.admin.protocol import LARGEST_ANSWER
from relay.core.errors import AdminError, NoRelayError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.3


@pytest.fixture
def path() -> Iterator[Path]:
    """Yields a path that is short enough for a Unix socket."""
    with TemporaryDirectory(prefix="relay-admin-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder, "admin.sock")


async def error_of(path: Path, limit: float = 10.0) -> str:
    with pytest.raises(AdminError) as caught:
        async with running_relay(path, limit) as relay:
            await relay.json("GET", "/status", limit)
    return str(caught.value)


async def test_no_relay_and_a_dead_socket_are_told_apart_from_faults(path: Path) -> None:
    with pytest.raises(NoRelayError, match="no relay listens"):
        async with running_relay(path):
            pass
    with listening(path) as socket, pytest.raises(NoRelayError):
        async with running_relay(socket / "below a file"):
            pass


async def test_a_file_that_is_no_socket_counts_as_no_relay() -> None:
    with pytest.raises(NoRelayError):
        async with running_relay(Path(__file__)):
            pass


async def test_a_relay_that_never_answers_is_given_up(path: Path) -> None:
    with listening(path):
        assert f"the relay at admin.socket {path} does not answer within 0.3 s" in await error_of(path, SOON)


async def test_a_relay_that_stops_in_its_answer_is_given_up(path: Path) -> None:
    with listening(path, PROCESS[:-1]):
        assert "does not answer within 0.3 s" in await error_of(path, SOON)


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example.test ESMTP\r\n",
        b"\x16\x03\x01\x00" * 4,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        answer_of(b"[]"),
        answer_of(b"free"),
        answer_of(b"\xff"),
        answer_of(b"[" * 100_000),
    ],
)
async def test_a_wrong_answer_is_reported(path: Path, answer: bytes) -> None:
    with listening(path, answer):
        assert f"what listens on admin.socket {path} does not answer as a relay does" in await error_of(path)


async def test_endless_answers_are_cut(path: Path) -> None:
    with listening(path, answer_of(b"", length=10**12), endless=b" " * 65536):
        assert f"answers with more than {LARGEST_ANSWER} bytes" in await error_of(path)
    with listening(path, b"HTTP/1.1 200 OK\r\nX: ", endless=b"x" * 65536):
        assert "does not answer as a relay does" in await error_of(path)


async def test_another_version_of_the_api_is_named(path: Path) -> None:
    with listening(path, answer_of(b"what?", api="2", status="400 No")):
        assert "has version 9.9.9, this command " in await error_of(path)
    with listening(path, PROCESS, answer_of(b"404: Not Found", status="404 Not Found")):
        assert "and the two do not understand each other" in await error_of(path)


async def test_another_version_with_the_same_api_is_understood(path: Path) -> None:
    with listening(path, PROCESS, answer_of(b'{"ready": true}')):
        async with running_relay(path) as relay:
            assert relay.other_version == "9.9.9"
            assert await relay.json("GET", "/status", 10.0) == {"ready": True}


async def test_a_refusal_has_the_words_of_the_relay(path: Path) -> None:
    with listening(path, PROCESS, answer_of(b"one\ntwo\n", status="409 Conflict")), pytest.raises(AdminError) as caught:
        async with running_relay(path) as relay:
            await relay.json("GET", "/status", 10.0)
    assert caught.value.args == ("one", "two")


async def test_a_user_who_may_not_connect_hears_what_to_do(path: Path) -> None:
    user, others = os.geteuid(), 65534
    with listening(path, mode=0):
        os.seteuid(others if user == 0 else user)
        try:
            error = await error_of(path)
        finally:
            os.seteuid(user)
    group = path.parent.group()
    assert error.startswith(
        f"admin.socket {path}: permission denied; use sudo, or join the group {group} (usermod -aG "
    )


async def test_a_command_too_many_hears_that_it_may_try_again(path: Path) -> None:
    with listening(path, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"):
        assert "answers too many commands at this moment; try again" in await error_of(path)
