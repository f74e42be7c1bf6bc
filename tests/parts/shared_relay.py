"""One relay for all tests of a module, because starting a relay takes longer than most tests."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self

from parts.peer import ScriptedPeer
from parts.ports import HOST, answers, free_port
from parts.relay_process import READY_WITHIN, RelayProcess
from parts.waiting import block_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class SharedRelay(RelayProcess):
    """A relay that belongs to no event loop, because each test has its own. Its claims are in memory by default."""

    def __init__(
        self, settings: Mapping[str, object] | None = None, *, upstream: str = "", store: str | None = "memory:"
    ) -> None:
        self._upstream_port = free_port()
        upstream = upstream or f"smtp://{HOST}:{self._upstream_port}"
        super().__init__(upstream=upstream, store=store, settings=settings)
        self._server_process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
        self._home.cleanup()

    def launch(self) -> None:
        """Starts the process, also after its end, on the same ports and with the same state. Waits until it serves."""
        with self.stderr_file.open("ab") as stderr:
            self._server_process = subprocess.Popen(
                [sys.executable, "-m", "relay", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=self.environment,
            )
        block_until(self._listens, "a relay that listens", seconds=READY_WITHIN)

    def end(self) -> None:
        """Kills the process."""
        if self._server_process is not None:
            self._server_process.kill()
            self._server_process.wait()

    def _listens(self) -> bool:
        if self._server_process is not None and self._server_process.poll() is not None:
            raise RuntimeError(f"relay ended with {self._server_process.returncode} at its start:\n{self.stderr()}")
        return answers(self.port) and answers(self.http_port)

    def peer(self) -> ScriptedPeer:
        """Returns a new upstream for the relay. Only one can run at a time."""
        peer = ScriptedPeer()
        peer.port = self._upstream_port
        return peer
