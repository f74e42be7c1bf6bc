"""The parts as fixtures. Servers that several tests can share run once; each test finds them running and empty."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from parts.certificates import Authority
from parts.desk import balanced_desk, balanced_desks
from parts.environment import isolated
from parts.peer import ScriptedPeer
from parts.postfix import Postfix
from parts.redis_server import RedisServer
from parts.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from parts.desk import Desk, OpenDesk
    from parts.shared_relay import SharedRelay

_NEEDS = Path(__file__).with_name("needs.sh")


def pytest_configure(config: pytest.Config) -> None:
    """Gives all tests, and the commands that they start, an environment without the host's settings and state."""
    folder = tempfile.TemporaryDirectory(prefix="relay-tests-")
    config.add_cleanup(folder.cleanup)
    environ = isolated(os.environ, Path(folder.name))
    os.environ.clear()
    os.environ.update(environ)


def pytest_sessionstart() -> None:
    """End before the first test, with the one command that mends it, where a program is missing. Nothing is skipped."""
    # A shell lets what it begins in the background ignore Ctrl-C, and the programs that the tests start take that over.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    looked = subprocess.run(["sh", str(_NEEDS), "--check"], capture_output=True, text=True, check=False)
    if looked.returncode:
        pytest.exit(looked.stderr, returncode=1)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def _redis_of_all() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_redis_of_all: RedisServer) -> RedisServer:
    """A Redis that is up and empty. A test may kill or pause it."""
    if _redis_of_all.running:
        _redis_of_all.resume()
    else:
        _redis_of_all.start()
    _redis_of_all.flush()
    return _redis_of_all


@pytest.fixture(scope="session")
def _postfix_of_all() -> Iterator[Postfix]:
    with Postfix() as server:
        yield server


@pytest.fixture
def postfix(_postfix_of_all: Postfix) -> Postfix:
    """A Postfix that is up, with nothing in its queue and mailboxes."""
    if not _postfix_of_all.running:
        _postfix_of_all.start()
    _postfix_of_all.clean()
    return _postfix_of_all


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """An upstream that does wrong on demand."""
    async with ScriptedPeer() as server:
        yield server


class StartRelay(Protocol):
    """Starts a relay with the arguments of `RelayProcess`; it ends with the test."""

    async def __call__(self, *flags: str, upstream: str, **more: Any) -> RelayProcess: ...


@pytest.fixture
async def start_relay() -> AsyncIterator[StartRelay]:
    """Starts relay processes, as many as a test wants."""
    async with AsyncExitStack() as stack:

        async def start(*flags: str, upstream: str, **more: Any) -> RelayProcess:
            return await stack.enter_async_context(RelayProcess(*flags, upstream=upstream, **more))

        yield start


@pytest.fixture
async def desk(shared_relay: SharedRelay, peer: ScriptedPeer) -> AsyncIterator[Desk]:
    """A desk at the relay that a module shares; the module makes that, and its upstream."""
    del peer
    async with balanced_desk(shared_relay) as desk_of_the_test:
        yield desk_of_the_test


@pytest.fixture
async def open_desk(start_relay: StartRelay) -> AsyncIterator[OpenDesk]:
    """Opens desks at relays of their own."""
    async with balanced_desks(start_relay) as open_one:
        yield open_one
