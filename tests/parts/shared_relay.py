"""One relay for all tests of a module: to start one costs more than most tests do."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self

from parts.peer import ScriptedPeer
from parts.ports import HOST, answers, free_port
from parts.relay_process import RelayProcess
from parts.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class SharedRelay(RelayProcess):
    """A relay that no event loop owns, because each test has a loop of its own. It keeps its claims in memory."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        self._upstream_port = free_port()
        super().__init__(upstream=f"smtp://{HOST}:{self._upstream_port}", store="memory:", settings=settings)
        self._served: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.stderr_file.open("ab") as stderr:
            self._served = subprocess.Popen(
                [sys.executable, "-m", "relay", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=self.environment,
            )
        block_until(lambda: answers(self.port) and answers(self.http_port), "a relay that listens")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._served is not None:
            self._served.kill()
            self._served.wait()
        self._home.cleanup()

    def peer(self) -> ScriptedPeer:
        """Make an upstream for it that has seen nothing yet; one at a time."""
        peer = ScriptedPeer()
        peer.port = self._upstream_port
        return peer
