"""Access tokens for XOAUTH2: where they come from, when they are read again, and the login with them."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TYPE_CHECKING

import pytest
from parts.logged import events
from parts.peer import ScriptedPeer
from parts.upstream_delivery import ONE, code, deliver, upstream

from relay.core.errors import UpstreamDown
from relay.upstream import token as module
from relay.upstream.token import AccessToken, token_from_command, token_from_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OLD, NEW = "ya29.0ld-t0ken", "ya29.n3w-t0ken"


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """Knows the new token only."""
    async with ScriptedPeer() as server:
        server.tokens = {b"me@example.test": NEW.encode()}
        yield server


class Source:
    """Returns the tokens that it was given, the last one again and again."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.reads = 0
        self.now = 0.0
        self.token = AccessToken(self._read, lambda: self.now)

    async def _read(self) -> str:
        self.reads += 1
        await asyncio.sleep(0)
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


async def test_a_token_is_kept_for_a_while_and_read_once_for_all() -> None:
    source = Source(OLD, NEW)
    assert await asyncio.gather(*(source.token.get() for _ in range(5))) == [OLD] * 5
    source.now = module.LONGEST_USE - 1
    assert await source.token.get() == OLD
    assert source.reads == 1
    source.now = module.LONGEST_USE
    assert await source.token.get() == NEW
    assert source.reads == 2


async def test_a_refused_token_is_replaced_once(peer: ScriptedPeer, caplog: pytest.LogCaptureFixture) -> None:
    source = Source(OLD, NEW)
    with caplog.at_level(logging.DEBUG):
        async with upstream(peer.port, user="me@example.test", token=source.token) as up:
            assert code(await deliver(up, ONE)) == 250
    assert [session.user for session in peer.sessions] == [b"", b"me@example.test"]
    assert source.reads == 2
    assert OLD not in f"{caplog.text} {events(caplog)}"


async def test_a_token_that_stays_wrong_is_tried_once(peer: ScriptedPeer, caplog: pytest.LogCaptureFixture) -> None:
    source = Source(OLD)
    async with upstream(peer.port, user="me@example.test", token=source.token) as up:
        for _ in range(3):
            assert code(await deliver(up, ONE)) == 451
    assert len(peer.commands(b"AUTH")) == 1
    assert "answered 535" in str(events(caplog))
    assert OLD not in f"{caplog.text} {events(caplog)}"


async def test_a_server_without_xoauth2_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedPeer(credentials=(b"me@example.test", b"x")) as peer:
        async with upstream(peer.port, user="me@example.test", token=Source(NEW).token) as up:
            assert code(await deliver(up, ONE)) == 451
        assert not peer.commands(b"AUTH")
    assert "does not offer what the settings ask for: XOAUTH2" in str(events(caplog))


async def test_tokens_come_from_the_first_line_of_a_file(tmp_path: Path, peer: ScriptedPeer) -> None:
    file = tmp_path / "token"
    token = token_from_file(file, time.monotonic)
    with pytest.raises(UpstreamDown, match=r"upstream\.token_file .*No such file"):
        await token.get()
    for text in ("", "\n", "two words\n", "x" * 20000):
        file.write_text(text)
        with pytest.raises(UpstreamDown, match="its first line is not an access token"):
            await token.get()
    file.write_text(f"{NEW}\nmore\n")
    async with upstream(peer.port, user="me@example.test", token=token) as up:
        assert code(await deliver(up, ONE)) == 250


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


async def test_tokens_come_from_the_output_of_a_command(peer: ScriptedPeer) -> None:
    token = token_from_command(python(f"print({NEW!r}); print('more')"), time.monotonic)
    async with upstream(peer.port, user="me@example.test", token=token) as up:
        assert code(await deliver(up, ONE)) == 250


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/nowhere/token"], "upstream.token_command /nowhere/token: No such file"),
        (python(f"import sys; print({NEW!r}); sys.exit(3)"), "ended with status 3"),
        (python("print('not a token')"), "its first line is not an access token"),
        (python("print('x' * 1_000_000)"), "no token within 2 s"),
    ],
)
async def test_a_command_without_a_token_is_named(command: list[str], message: str) -> None:
    with pytest.raises(UpstreamDown, match=message) as caught:
        await token_from_command(command, time.monotonic, limit=2.0).get()
    assert NEW not in str(caught.value)


async def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    child = "import subprocess; subprocess.run(['sleep', '600'])"
    with pytest.raises(UpstreamDown, match=r"no token within 0\.5 s"):
        await token_from_command(python(child), time.monotonic, limit=0.5).get()


async def test_a_child_that_keeps_the_pipe_open_holds_no_login() -> None:
    child = "import subprocess; subprocess.Popen(['sleep', '5'], start_new_session=True); print('x')"
    with pytest.raises(UpstreamDown, match=r"no token within 1 s"):
        await token_from_command(python(child), time.monotonic, limit=1).get()
