"""The relay as its users run it: a process with flags, ended by signals, watched over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from parts.ports import HOST, free_port
from parts.waiting import LONGEST, until_told

if TYPE_CHECKING:
    from collections.abc import Mapping

_TREE = Path(__file__).parents[2]
_READY_WITHIN = 60.0


class Metrics:
    """What `/metrics` said at one moment."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Add up the samples of this name that carry these labels; fail when there is none."""
        found = [s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()]
        if not found:
            raise KeyError(f"{name}{labels} is not among the metrics")
        return sum(found)

    def by_label(self, name: str, label: str) -> dict[str, int]:
        """Give the samples of this name by the value of one of their labels, added up over the others."""
        counts: dict[str, int] = {}
        for sample in self._samples:
            if sample.name == name:
                counts[sample.labels[label]] = counts.get(sample.labels[label], 0) + int(sample.value)
        return counts

    def outcomes(self) -> dict[str, int]:
        """Give the count of recipients by outcome; those at 0 are left out."""
        counts = self.by_label("smtp_dedup_recipients_total", "outcome")
        return {outcome: count for outcome, count in counts.items() if count}

    def messages(self) -> dict[str, int]:
        """Give the count of messages by class of reply; those at 0 are left out."""
        counts = self.by_label("smtp_dedup_messages_total", "reply")
        return {reply: count for reply, count in counts.items() if count}


@dataclass(frozen=True)
class Finished:
    """A command that has run."""

    status: int
    stdout: str
    stderr: str


async def run_relay(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = LONGEST
) -> Finished:
    """Run another command of the relay, such as `explain`, to its end, which comes within so many seconds."""
    with tempfile.TemporaryDirectory(prefix="relay-state-") as state:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=_TREE,
            env=_environment(Path(state)) | dict(environment or {}),
        )
        try:
            async with asyncio.timeout(seconds):
                stdout, stderr = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
    return Finished(process.returncode or 0, stdout.decode(), stderr.decode())


class RelayProcess:
    """`relay serve` with these settings. Several may share one store, and with `state` one state folder."""

    def __init__(
        self,
        *flags: str,
        upstream: str,
        store: str | None = None,
        settings: Mapping[str, object] | None = None,
        state: Path | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: tuple[int, int] | None = None,
    ) -> None:
        """`descriptors` are its soft and hard limit of file descriptors."""
        self._descriptors = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)
        self.port = free_port()
        self.http_port = free_port()
        self._home = tempfile.TemporaryDirectory(prefix="relay-serve-")
        self.stderr_file = Path(self._home.name, "stderr")
        self.state = state or Path(self._home.name)
        self.environment = _environment(self.state) | dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self.arguments = ["--listen", f"{HOST}:{self.port}", "--http", f"{HOST}:{self.http_port}"]
        self.arguments += ["--upstream", upstream, *(["--store", store] if store else []), *flags]
        for key, value in (settings or {}).items():
            self.arguments += ["--set", f"{key}={value}"]

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        return self._running().pid

    def stderr(self) -> str:
        """Give all that it has said to people, and its log."""
        return self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""

    async def start(self) -> None:
        """Start, also again after its end, on the same ports and with the same state; wait until it serves."""
        with self.stderr_file.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "relay", "serve", *self.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                cwd=_TREE,
                env=self.environment,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, self._descriptors),
            )
        try:
            await until_told(self._serves, "the relay serves", seconds=_READY_WITHIN)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it says:\n{self.stderr()}") from None

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self._running().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._running().kill()

    async def wait(self, *, seconds: float = LONGEST) -> int:
        """Wait for its end and give its exit status."""
        try:
            async with asyncio.timeout(seconds):
                return await self._running().wait()
        except TimeoutError:
            raise TimeoutError(f"relay did not end within {seconds:g} s:\n{self.stderr()}") from None

    async def close(self) -> None:
        """End it whatever it does, and take its files away."""
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
        self._home.cleanup()

    async def metrics(self) -> Metrics:
        """Ask for the metrics as they are now."""
        _, text = await self.get("/metrics")
        return Metrics(text)

    async def readyz(self) -> dict[str, Any]:
        """Ask how its parts are. The HTTP status is added under `status_code`."""
        async with self._client() as client, client.get(self._url("/readyz")) as response:
            return {**await response.json(content_type=None), "status_code": response.status}

    async def get(self, path: str) -> tuple[int, str]:
        """Give status and body of a path."""
        async with self._client() as client, client.get(self._url(path)) as response:
            return response.status, await response.text()

    async def _serves(self) -> bool:
        if (status := self._running().returncode) is not None:
            raise RuntimeError(f"relay ended with {status} at its start:\n{self.stderr()}")
        try:
            return (await self.get("/livez"))[0] == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    def _url(self, path: str) -> str:
        return f"http://{HOST}:{self.http_port}{path}"

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the relay was not started")
        return self._process


def _environment(state: Path) -> dict[str, str]:
    """Give our own environment without what would set the relay up behind the test's back."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    return kept | {"STATE_DIRECTORY": str(state), "PYTHONUNBUFFERED": "1"}
