"""The alert rules and the dashboard, with a real Prometheus that scrapes a real relay."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from parts.client import send
from parts.peer import ScriptedPeer
from parts.prometheus import FOLDER, Prometheus
from parts.redis_server import RedisServer
from parts.relay_process import RelayProcess

from relay.monitor.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "config" / "grafana" / "dashboard.json"
PANELS: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", ())]
_VARIABLES = {"$job": ".*", "$instance": ".*", "$__rate_interval": "5s"}
_METRIC = re.compile(r"\bsmtp_dedup_\w+")


def replace_variables(expression: str) -> str:
    """Writes values for the variables, as Grafana does."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def known_names() -> set[str]:
    """Returns the names of all samples of the relay, and of gauges that have none at the start."""
    families = list(Metrics().registry.collect())
    return {sample.name for family in families for sample in family.samples} | {family.name for family in families}


@pytest.mark.parametrize("arguments", [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml")])
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    subprocess.run(["promtool", *arguments], cwd=FOLDER, check=True, capture_output=True)


@pytest.mark.parametrize("tests", ["alerts_test.yml", "alerts_days_test.yml"])
def test_each_alert_fires_when_it_should(tests: str) -> None:
    result = subprocess.run(
        ["promtool", "test", "rules", tests], cwd=FOLDER, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_has_a_test() -> None:
    alerts = re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text("utf-8"))
    tested = "".join(path.read_text("utf-8") for path in FOLDER.glob("alerts_*test.yml"))
    assert [alert for alert in alerts if f'alertname="{alert}"' not in tested] == []


def test_rules_and_dashboard_name_metrics_that_exist() -> None:
    names = known_names()
    for source in ((FOLDER / "alerts.yml").read_text("utf-8"), " ".join(query for _, query in QUERIES)):
        used = {name for name in _METRIC.findall(source) if not re.search(rf":{name}:", source)}
        assert used - names == set()


async def test_alerts_fire_and_clear_and_every_panel_has_data() -> None:
    with RedisServer() as redis:
        async with (
            ScriptedPeer() as upstream,
            RelayProcess(upstream=upstream.url, store=redis.url, settings={"upstream.patience": "0s"}) as relay,
            Prometheus(relay.http_port) as prometheus,
        ):
            assert [await notify(relay, "first") for _ in "ab"] == [250, 250]
            assert await prometheus.firing() == set()

            async def without_data() -> list[tuple[str, str]]:
                return [
                    (title, query) for title, query in QUERIES if not await prometheus.query(replace_variables(query))
                ]

            async def every_panel_has_data() -> bool:
                return not await without_data()

            await prometheus.until(every_panel_has_data, f"data for {await without_data()}")

            await upstream.stop()
            redis.kill()
            assert await notify(relay, "second") == 451

            async def both_fire() -> bool:
                return {"SmtpDedupUpstreamDown", "SmtpDedupStoreDegraded"} <= await prometheus.firing()

            await prometheus.until(both_fire, "two alerts")

            redis.start()
            await upstream.start()
            assert await notify(relay, "second") == 250

            async def both_are_clear() -> bool:
                return not {"SmtpDedupUpstreamDown", "SmtpDedupStoreDegraded"} & await prometheus.firing()

            await prometheus.until(both_are_clear, "two alerts to clear")


async def notify(relay: RelayProcess, text: str) -> int:
    """Sends a mail. Returns the code of the last reply."""
    content = f"From: a@example.test\r\nSubject: {text}\r\n\r\n{text}\r\n".encode()
    return (await send(relay.port, b"a@example.test", [b"b@example.test"], content)).final.code
