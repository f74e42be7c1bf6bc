"""A real Prometheus that scrapes relays, with the project's alert rules."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from parts.ports import HOST, free_port
from parts.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

FOLDER = Path(__file__).parents[2] / "config" / "prometheus"
_ASK_EVERY = 0.2
_CONFIG = """\
global:
  scrape_interval: 500ms
  evaluation_interval: 500ms
rule_files: [{rules}]
scrape_configs:
  - job_name: smtp-dedup-relay
    static_configs:
      - targets: {targets}
"""


class Prometheus:
    """The server. Every `for` of the rules is shortened to one second."""

    def __init__(self, *ports: int) -> None:
        self._targets = [f"{HOST}:{port}" for port in ports]
        self._port = free_port()
        self._home = tempfile.TemporaryDirectory(prefix="relay-prometheus-")
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        await self.until(self.is_scraping, "a first scrape of each relay")
        return self

    def _start(self) -> None:
        home = Path(self._home.name)
        rules = (FOLDER / "alerts.yml").read_text("utf-8")
        (home / "alerts.yml").write_text(re.sub(r"(?m)^( +for: ).*", r"\g<1>1s", rules))
        (home / "prometheus.yml").write_text(
            _CONFIG.format(rules=home / "alerts.yml", targets=json.dumps(self._targets))
        )
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={home / 'prometheus.yml'}",
                    f"--storage.tsdb.path={home / 'data'}",
                    f"--web.listen-address={HOST}:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    async def is_scraping(self) -> bool:
        """Returns whether every relay was scraped."""
        return len(await self.query("up == 1")) == len(self._targets)

    async def query(self, expression: str) -> Sequence[dict[str, Any]]:
        """Returns the samples of an instant query. Raises `ValueError` for an expression that Prometheus refuses."""
        answer = await self._get("query", query=expression)
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def firing(self) -> set[str]:
        """Returns the names of the alerts that fire."""
        answer = await self._get("alerts")
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"}

    async def until(self, holds: Callable[[], Awaitable[object]], what: str) -> None:
        """Asks until a condition holds. Prometheus tells no one when a sample arrives."""
        try:
            async with asyncio.timeout(LONGEST):
                while True:
                    try:
                        if await holds():
                            return
                    except aiohttp.ClientError:
                        pass
                    await asyncio.sleep(_ASK_EVERY)
        except TimeoutError:
            raise TimeoutError(f"waited for {what}; the log of Prometheus:\n{self._log()}") from None

    def _log(self) -> str:
        return Path(self._home.name, "log").read_text(errors="replace")

    async def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"http://{HOST}:{self._port}/api/v1/{path}"
        async with aiohttp.ClientSession() as client, client.get(url, params=parameters) as response:
            answer: dict[str, Any] = await response.json()
            return answer
