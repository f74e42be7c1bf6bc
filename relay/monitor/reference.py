"""Writes `docs/metrics.md` and `docs/log.md`: each metric and log event of the relay, and what to do.

`python -m relay.monitor.reference ROOT` writes the files below the project's root. With `--check` it writes nothing and
ends with 1 if a file is out of date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.core.ruling import DEFAULT
from relay.monitor.log_reference import log_markdown
from relay.monitor.metrics import Metrics
from relay.runtime.generated import run_generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

_COMMAND = "python -m relay.monitor.reference ."
_PREFIX = "smtp_dedup_"
_OPEN_LABELS = {"rule": "the name of a rule, or `default`", "upstream": "`host:port` of a mail server", "version": ""}
"""Labels whose values the settings decide."""
_SUFFIXES = {"counter": "_total", "info": "_info"}
_SOME_RULE = "some rule"
_DISTRIBUTIONS = frozenset({"le"})

ADVICE = {
    "build": "Compare the versions of all instances after an upgrade.",
    "recipients": "The share of `suppressed` far above its usual is the dangerous direction: `relay suppressed`. "
    "`uncertain`: look at the upstream's log for restarts and timeouts.",
    "messages": "`4xx`: clients try again; find the cause in `rcpt_refused` and the log. `aborted`: clients or a "
    "network that break off; compare with the time that the upstream takes.",
    "repeats": "A rule with far more repeats than before: try it with `relay explain` on two copies.",
    "rule_recipients": "A rule that never matches although its mail came: try it with `relay explain`.",
    "interrupted_repeats": "Nothing. Many of them in one rule: its senders repeat states, as `consecutive` intends.",
    "duplicate_age_seconds": "Ages near `dedup.window`: later repeats pass. Lengthen the window, or that of the rule.",
    "message_seconds": "Slow replies: compare with `upstream_step_seconds`; the rest is the relay or its store.",
    "rcpt_refused": "`5yz`, `4yz`: the upstream's own. `unreachable`: `relay check`. `busy`: raise "
    "`upstream.connections`, or find out why the upstream is slow. `limit`: `limits.recipients`. "
    "`rate`: `limits.recipient_rate`.",
    "pool_in_use": "At `upstream.connections` for long: raise it, or find out why the upstream is slow.",
    "upstream_step_seconds": "A slow `connect` or `greeting`: network, DNS or load of the upstream. A slow `dot`: its "
    "content filters or disk. Many `reclaimed`: clients that name a recipient and stall.",
    "sessions_refused": "The log names a client and the setting that decides (event `session refused`).",
    "logins": "Many failures: a wrong password in an application, or guesses. The log has the clients' addresses.",
    "page_logins": "Many failures: guesses. The log has the visitors' addresses; see who can reach `http.address`.",
    "senders_refused": "`no_login`: the client must log in, or belongs into `listen.networks`. `not_allowed`: "
    "`relay user add --from`. `rate`: `limits.message_rate`, or a stolen password.",
    "exempt_messages": "Nothing. Compare with what the rules should exempt.",
    "records_lost": "`relay why` cannot explain these. Look at the store, and at the disk of `record.keep`.",
    "traces_skipped": "Clients begin transactions and send no message: the log names them (`recipient refused`).",
    "traces_waiting": "If it stays in the thousands, the store of traces is down or too slow.",
    "trace_up": "Mail flows, and `relay why` finds nothing new. For SQLite look at the disk, for Redis `relay check`.",
    "claims_lost": "The store or the machine stalled for longer than `dedup.lease`: recipients may have two copies.",
    "claims_beyond_bound": "`store`: give Redis more memory. `memory`: the store was away for too long.",
    "faults": "Report them, with the traceback from the log (event `fault`). The clients received 451.",
    "log_lines_dropped": "The reader of the log is too slow, or its disk is full. Mail is not affected.",
    "memory_refused": "Raise `limits.memory`, or find out why the upstream is slow.",
    "judgements_timed_out": "Their repeats pass. The machine is overloaded, or a message is built to be slow.",
    "in_flight_bytes": "Near `in_flight_limit_bytes`: as `memory_refused`.",
    "in_flight_limit_bytes": "Nothing.",
    "waiting_twins": "High for long: the first copies are slow, so the upstream is.",
    "sessions": "Near `limits.sessions`: clients that do not end their sessions, or a flood.",
    "claims": "High for long: the upstream is slow.",
    "store_up": "0: `relay check` names the cause.",
    "store_degraded": "1: mail flows, and each process suppresses only what it has seen itself. `relay check`.",
    "observing": '1: repeats are forwarded. `dedup.mode = "enforce"` when you trust what `relay suppressed` shows.',
    "config_last_reload_successful": "0: the settings before stay in force. The log names the mistakes, and so does "
    "`relay check`.",
    "config_last_reload_success_timestamp_seconds": "Older than your last change: `systemctl reload smtp-dedup-relay`.",
    "upstream_used": "0: this mail server failed, and others take the mail.",
    "upstream_up": "0: clients receive 451. `relay check` names the cause.",
}
"""What to do, by the name of the metric without its prefix."""


def reference_markdown() -> str:
    """Returns `docs/metrics.md`. Raises `KeyError` for a metric without advice."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f"<!-- Written by `{_COMMAND}` from relay/monitor. -->"
    yield "# Metrics"
    yield ""
    yield "`GET /metrics` at `http.address` returns them, in the format of Prometheus or OpenMetrics. All label values"
    yield "exist from the start, at 0. [`config/prometheus/`](../config/prometheus/) has a scrape job and alert rules,"
    yield "[`config/grafana/dashboard.json`](../config/grafana/dashboard.json) a dashboard that shows all of them. The"
    yield "standard metrics of the process (`process_…`, `python_gc_…`, `python_info`) are there too."
    yield ""
    yield "| metric | type | labels | meaning | what to do |"
    yield "|---|---|---|---|---|"
    for metric in Metrics([DEFAULT, _SOME_RULE]).registry.collect():
        if metric.name.startswith(_PREFIX):
            name = f"`{metric.name}{_SUFFIXES.get(metric.type, '')}`"
            advice = ADVICE[metric.name.removeprefix(_PREFIX)]
            yield f"| {name} | {metric.type} | {_labels(metric)} | {metric.documentation} | {advice} |"


def _labels(metric: Metric) -> str:
    values: dict[str, dict[str, None]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label not in _DISTRIBUTIONS:
                values.setdefault(label, {})[value] = None
    texts = []
    for label in values or _labels_without_samples(metric):
        known = _OPEN_LABELS.get(label, ", ".join(f"`{value}`" for value in values.get(label, ())))
        texts.append(f"`{label}`{': ' if known else ''}{known}")
    return "<br>".join(texts)


def _labels_without_samples(metric: Metric) -> tuple[str, ...]:
    return ("upstream",) if metric.name == f"{_PREFIX}upstream_used" else ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes docs/metrics.md and docs/log.md, or checks them."""
    files = {"docs/metrics.md": reference_markdown, "docs/log.md": log_markdown}
    run_generator("relay.monitor.reference", main.__doc__, files, arguments)


if __name__ == "__main__":
    main()
