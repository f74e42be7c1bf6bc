"""The relay as a process with flags, which signals end and which HTTP shows."""

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

from parts.environment import isolated
from parts.ports import HOST, free_port
from parts.waiting import LONGEST, until_told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TREE = Path(__file__).parents[2]
READY_WITHIN = 60.0
"""Seconds in which a relay must serve, on a busy machine."""


class Metrics:
    """The metrics of one moment, parsed from `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples with this name and these labels. Raises `KeyError` if there is none."""
        found = [s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()]
        if not found:
            raise KeyError(f"{name}{labels} is not among the metrics")
        return sum(found)

    def by_label(self, name: str, label: str) -> dict[str, int]:
        """Returns the sums of the samples with this name by the value of one label."""
        counts: dict[str, int] = {}
        for sample in self._samples:
            if sample.name == name:
                counts[sample.labels[label]] = counts.get(sample.labels[label], 0) + int(sample.value)
        return counts

    def outcomes(self) -> dict[str, int]:
        """Returns the counts of recipients by outcome, without those at 0."""
        counts = self.by_label("smtp_dedup_recipients_total", "outcome")
        return {outcome: count for outcome, count in counts.items() if count}

    def messages(self) -> dict[str, int]:
        """Returns the counts of messages by class of reply, without those at 0."""
        counts = self.by_label("smtp_dedup_messages_total", "reply")
        return {reply: count for reply, count in counts.items() if count}


@dataclass(frozen=True)
class Finished:
    """The result of a command."""

    status: int
    stdout: str
    stderr: str


async def run_relay(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = LONGEST
) -> Finished:
    """Runs a command of the relay other than `serve`. Raises `TimeoutError` after so many seconds."""
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
    """`relay serve` with these settings. Several processes can share a store, and with `state` a state folder."""

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
        # Tests recognise repeats by their reply; those of `dedup.reply = "same"` set it in `environment`.
        explained = {"RELAY_DEDUP__REPLY": "explain"}
        self.environment = _environment(self.state) | explained | dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self.prefix: Sequence[str] = ()
        """A command such as `prlimit` that starts the relay in its own place."""
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
        """Returns the messages and the log that the process has written."""
        return self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""

    async def start(self) -> None:
        """Starts the process, also after its end, on the same ports and with the same state. Waits until it serves."""
        with self.stderr_file.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(*self.prefix, sys.executable, "-m", "relay", "serve", *self.arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                cwd=_TREE,
                env=self.environment,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, self._descriptors),
            )
        try:
            await until_told(self._serves, "the relay serves", seconds=READY_WITHIN)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its output:\n{self.stderr()}") from None

    def terminate(self) -> None:
        """Sends SIGTERM, so that the relay drains and ends."""
        self._running().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL, which ends the relay as a crash does."""
        self._running().kill()

    async def wait(self, *, seconds: float = LONGEST) -> int:
        """Waits for the end of the process and returns its exit status."""
        try:
            async with asyncio.timeout(seconds):
                return await self._running().wait()
        except TimeoutError:
            raise TimeoutError(f"relay did not end within {seconds:g} s:\n{self.stderr()}") from None

    async def close(self) -> None:
        """Kills the process and removes its files."""
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
        self._home.cleanup()

    async def metrics(self) -> Metrics:
        """Returns the current metrics."""
        _, text = await self.get("/metrics")
        return Metrics(text)

    async def readyz(self) -> dict[str, Any]:
        """Returns the body of `/readyz` and, under `status_code`, the HTTP status."""
        async with self._client() as client, client.get(self._url("/readyz")) as response:
            return {**await response.json(content_type=None), "status_code": response.status}

    async def get(self, path: str) -> tuple[int, str]:
        """Returns the HTTP status and the body of a path."""
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
    return isolated(os.environ, state) | {"PYTHONUNBUFFERED": "1"}
