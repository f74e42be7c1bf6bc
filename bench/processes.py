"""The servers of a throughput measurement, and the CPU that they use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

BENCH = Path(__file__).parent
TREE = BENCH.parent
sys.path[:0] = [str(TREE), str(TREE / "tests")]  # the relay, where it is not installed, and the tests' servers

from parts.environment import isolated  # noqa: E402
from parts.ports import HOST, answers, free_port  # noqa: E402
from parts.redis_server import RedisServer  # noqa: E402
from parts.waiting import block_until  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HOST", "TREE", "RedisServer", "Server", "Speed", "start", "start_relay"]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STATE = tempfile.TemporaryDirectory(prefix="relay-bench-")
"""Holds the state of all relays until this process ends."""


class Speed(NamedTuple):
    """What one run measured."""

    rate: float
    """Messages a second."""
    cpu: float
    """Milliseconds of CPU a message, all threads."""


@dataclass
class Server:
    """A process that listens on a port of the loopback address."""

    process: subprocess.Popen[str]
    port: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def measure(self, messages: int, *, clients: int, per_connection: int = 1) -> Speed:
        """Sends messages through the server and returns its speed."""
        before = self.cpu_seconds
        numbers = map(str, (self.port, messages, clients, per_connection))
        command = [sys.executable, str(BENCH / "traffic.py"), "send", *numbers]
        sent = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return Speed(messages / float(sent.stdout), (self.cpu_seconds - before) * 1000 / messages)


def start(script: str, *arguments: str) -> Server:
    """Starts a script of this folder that prints its port."""
    command = [sys.executable, str(BENCH / script), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return Server(process, int(process.stdout.readline()))


def start_relay(upstream: int, *, store: str = "memory:", tree: Path = TREE, settings: Sequence[str] = ()) -> Server:
    """Starts the relay whose source is in `tree`. Nothing of the host's settings and state reaches it."""
    port = free_port()
    flags = ["--listen", f"{HOST}:{port}", "--http", "", "--store", store, "--upstream", f"smtp://{HOST}:{upstream}"]
    flags += [word for setting in settings for word in ("--set", setting)]
    state = Path(tempfile.mkdtemp(dir=STATE.name))
    log = state / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve", *flags],
            stdout=output,
            stderr=output,
            text=True,
            cwd=tree,
            env=isolated(os.environ, state),
        )
    relay = Server(process, port)

    def listens() -> bool:
        if process.poll() is not None:
            raise SystemExit(f"the relay of {tree} did not start:\n{log.read_text()}")
        return answers(port)

    block_until(listens, f"the relay of {tree} listening")
    return relay
