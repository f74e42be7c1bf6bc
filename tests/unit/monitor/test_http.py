"""`/metrics`, `/livez` and `/readyz` of a running relay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import pytest
from parts.client import send
from parts.faults import Step, say
from parts.logged import wait_upstream
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from relay import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import StartRelay
    from parts.peer import ScriptedPeer
    from parts.redis_server import RedisServer
    from parts.relay_process import RelayProcess
    from prometheus_client.metrics_core import Metric

Samples: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
OUTCOMES = {"forwarded", "suppressed", "would_suppress", "refused", "deferred", "uncertain"}
CAUSES = {"5yz", "4yz", "unreachable", "busy", "limit"}
MESSAGE_STEPS = {"login", "tls", "mail", "rcpt", "data", "dot"}
REPLIES = {"2xx", "4xx", "5xx", "aborted"}


@pytest.fixture
async def relay(start_relay: StartRelay, peer: ScriptedPeer) -> RelayProcess:
    started = await start_relay(upstream=peer.url)
    await wait_upstream(started, "up")
    return started


async def get(relay: RelayProcess, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    """Give status, content type and body."""
    url = f"http://127.0.0.1:{relay.http_port}{path}"
    async with aiohttp.ClientSession() as client, client.get(url, headers={"Accept": accept}) as response:
        return response.status, response.headers["Content-Type"], await response.text()


def samples(families: Iterable[Metric]) -> Samples:
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def test_every_figure_is_there_from_the_start_in_both_formats(relay: RelayProcess) -> None:
    status, kind, body = await get(relay, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert_figures_of_the_start(samples(parse_text(body)))
    status, kind, body = await get(relay, "/metrics", OPENMETRICS)
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert_figures_of_the_start(samples(parse_openmetrics(body)))


def assert_figures_of_the_start(found: Samples) -> None:
    zero = {("smtp_dedup_recipients_total", frozenset({("outcome", outcome)})) for outcome in OUTCOMES}
    zero |= {("smtp_dedup_messages_total", frozenset({("reply", reply)})) for reply in REPLIES}
    zero |= {("smtp_dedup_rcpt_refused_total", frozenset({("cause", cause)})) for cause in CAUSES}
    zero |= {("smtp_dedup_duplicate_age_seconds_count", frozenset()), ("smtp_dedup_pool_in_use", frozenset())}
    zero |= {("smtp_dedup_upstream_step_seconds_count", frozenset({("step", step)})) for step in MESSAGE_STEPS}
    assert {key: found[key] for key in zero} == dict.fromkeys(zero, 0)
    named = {key for key in found if key[0] in ("smtp_dedup_recipients_total", "smtp_dedup_messages_total")}
    assert named <= zero
    state = {name: found[name, frozenset()] for name in ("smtp_dedup_store_up", "smtp_dedup_store_degraded")}
    assert state == {"smtp_dedup_store_up": 1, "smtp_dedup_store_degraded": 0}
    assert found["smtp_dedup_upstream_up", frozenset()] == 1
    assert found["smtp_dedup_build_info", frozenset({("version", __version__)})] == 1


async def test_what_happens_is_counted(relay: RelayProcess, peer: ScriptedPeer) -> None:
    for _ in range(2):
        assert (await send(relay.port, b"s@example.test", [b"a@example.test", b"b@example.test"], b"Subject: x\r\n")).ok
    found = samples(parse_text((await get(relay, "/metrics"))[2]))
    counts = {
        labels: value for (name, labels), value in found.items() if name == "smtp_dedup_recipients_total" and value
    }
    assert counts == {frozenset({("outcome", "forwarded")}): 2, frozenset({("outcome", "suppressed")}): 2}
    assert found["smtp_dedup_messages_total", frozenset({("reply", "2xx")})] == 2
    assert found["smtp_dedup_duplicate_age_seconds_count", frozenset()] == 2
    assert found["smtp_dedup_message_seconds_count", frozenset()] == 2
    steps = {
        dict(labels)["step"]: value
        for (name, labels), value in found.items()
        if name == "smtp_dedup_upstream_step_seconds_count"
    }
    # The probe and the first message share a connection; the repeat's transaction is left before DATA.
    assert steps == {
        "reclaimed": 0,
        "connect": 1,
        "greeting": 1,
        "tls": 0,
        "ehlo": 1,
        "login": 0,
        "mail": 2,
        "rcpt": 2,
        "data": 1,
        "dot": 1,
    }
    assert found["smtp_dedup_pool_in_use", frozenset()] == 0


async def test_refused_recipients_are_counted_by_cause(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.patience": "0s", "limits.recipients": 1})
    await wait_upstream(relay, "up")
    peer.on(Step.RCPT, say(b"550 5.1.1 unknown"), matching=b"unknown", times=None)
    peer.on(Step.RCPT, say(b"450 4.2.0 later"), matching=b"grey", times=None)
    recipients = [b"unknown1@example.test", b"unknown2@example.test", b"grey@example.test", b"a@x.test", b"b@x.test"]
    await send(relay.port, b"s@example.test", recipients, b"Subject: x\r\n")
    await peer.stop()
    await send(relay.port, b"s@example.test", [b"a@x.test"], b"Subject: x\r\n")
    counts = (await relay.metrics()).by_label("smtp_dedup_rcpt_refused_total", "cause")
    assert counts == {"5yz": 2, "4yz": 1, "limit": 1, "unreachable": 1, "busy": 0, "rate": 0}


async def test_readiness_follows_the_upstream(start_relay: StartRelay, peer: ScriptedPeer) -> None:
    relay = await start_relay(upstream=peer.url, settings={"upstream.patience": "0s"})
    await wait_upstream(relay, "up")
    status, kind, body = await get(relay, "/readyz")
    assert (status, kind) == (200, "application/json; charset=utf-8")
    up = {"listener": "listening", "upstream": "up", "store": "up", "trace": "up"}
    assert json.loads(body) == {"ready": True, **up}
    await peer.stop()
    assert not (await send(relay.port, b"s@example.test", [b"a@example.test"], b"")).ok
    status, _, body = await get(relay, "/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, **up, "upstream": "down"}
    assert (await relay.metrics()).value("smtp_dedup_upstream_up") == 0
    assert (await get(relay, "/livez"))[0] == 200
    await peer.start()
    await wait_upstream(relay, "up")  # without any mail
    assert (await get(relay, "/readyz"))[0] == 200


async def test_a_relay_without_its_store_is_ready_and_says_so(
    start_relay: StartRelay, peer: ScriptedPeer, redis_server: RedisServer
) -> None:
    redis_server.kill()
    relay = await start_relay(upstream=peer.url, store=redis_server.url)
    await wait_upstream(relay, "up")
    status, _, body = await get(relay, "/readyz")
    assert (status, json.loads(body)["store"]) == (200, "degraded")
    metrics = await relay.metrics()
    assert (metrics.value("smtp_dedup_store_up"), metrics.value("smtp_dedup_store_degraded")) == (0, 1)
    assert (json.loads(body)["trace"], metrics.value("smtp_dedup_trace_up")) == ("degraded", 0)


async def test_any_other_path_is_not_found_and_nothing_is_changed_here(relay: RelayProcess) -> None:
    assert [(await get(relay, path))[0] for path in ("/metrics/", "/etc/passwd", "/livez/../x")] == [404] * 3
    assert (await get(relay, "/livez/.."))[:2] == (200, "text/html; charset=utf-8")  # the page
    async with aiohttp.ClientSession() as client:
        async with client.post(f"http://127.0.0.1:{relay.http_port}/metrics", data=b"x") as response:
            assert response.status == 405
        async with client.get(f"http://127.0.0.1:{relay.http_port}/livez") as response:
            assert response.headers["Server"] == "smtp-dedup-relay"
            assert await response.text() == "ok\n"
