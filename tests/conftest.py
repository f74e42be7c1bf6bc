"""Fixtures for the real servers. Those that several tests share start once; each test finds them up and empty."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings
from parts.certificates import Authority
from parts.counted_relay import counted_relay, counted_relays
from parts.environment import isolated
from parts.peer import ScriptedPeer
from parts.postfix import Postfix
from parts.redis_server import RedisServer
from parts.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parts.counted_relay import CountedRelay, StartCounted
    from parts.shared_relay import SharedRelay

_NEEDS = Path(__file__).with_name("needs.sh")

# No test asserts a speed. The rest of the profile stays, such as that which Hypothesis loads under CI=true.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Gives all tests, and the commands that they start, an environment without the host's settings and state."""
    folder = tempfile.TemporaryDirectory(prefix="relay-tests-")
    config.add_cleanup(folder.cleanup)
    environ = isolated(os.environ, Path(folder.name))
    os.environ.clear()
    os.environ.update(environ)


def pytest_sessionstart() -> None:
    """Exits before the first test if a program is missing, and names the command that installs it. Skips no test."""
    # A shell makes background jobs ignore SIGINT, and the programs that the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    checked = subprocess.run(["sh", str(_NEEDS), "--check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        pytest.exit(checked.stderr, returncode=1)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_shared_redis: RedisServer) -> RedisServer:
    """A Redis that is up and empty. Tests may kill or pause it."""
    if _shared_redis.running:
        _shared_redis.resume()
    else:
        _shared_redis.start()
    _shared_redis.flush()
    return _shared_redis


@pytest.fixture(scope="session")
def _shared_postfix() -> Iterator[Postfix]:
    with Postfix() as server:
        yield server


@pytest.fixture
def postfix(_shared_postfix: Postfix) -> Postfix:
    """A Postfix that is up, with an empty queue and empty mailboxes."""
    if not _shared_postfix.running:
        _shared_postfix.start()
    _shared_postfix.clean()
    return _shared_postfix


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """An upstream with faults on demand."""
    async with ScriptedPeer() as server:
        yield server


class StartRelay(Protocol):
    """Starts a relay with the arguments of `RelayProcess`. The end of the test ends it."""

    async def __call__(self, *flags: str, upstream: str, **more: Any) -> RelayProcess: ...


@pytest.fixture
async def start_relay() -> AsyncIterator[StartRelay]:
    """Starts any number of relay processes."""
    async with AsyncExitStack() as stack:

        async def start(*flags: str, upstream: str, **more: Any) -> RelayProcess:
            return await stack.enter_async_context(RelayProcess(*flags, upstream=upstream, **more))

        yield start


@pytest.fixture
async def relay(shared_relay: SharedRelay, peer: ScriptedPeer) -> AsyncIterator[CountedRelay]:
    """The relay that all tests of a module share. The module defines the fixtures `shared_relay` and `peer`."""
    del peer
    async with counted_relay(shared_relay) as counted:
        yield counted


@pytest.fixture
async def start_counted(start_relay: StartRelay) -> AsyncIterator[StartCounted]:
    """Starts relays for one test, and counts the mail that they receive."""
    async with counted_relays(start_relay) as start:
        yield start
