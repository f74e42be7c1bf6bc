"""The Prometheus metrics. All label sets exist from the start, at 0; no label is unbounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from relay import __version__
from relay.core.login import LoginOutcome
from relay.core.outcome import REPEATS, Outcome
from relay.core.reply import TOO_MANY_RECIPIENTS, TOO_MANY_RECIPIENTS_PER_MINUTE, UNREACHABLE, UPSTREAM_BUSY
from relay.core.ruling import DEFAULT
from relay.core.session_refusal import SessionRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from relay.core.reply import Reply
    from relay.core.report import Report

ABORTED = "aborted"
_REPLIES = {2: "2xx", 4: "4xx", 5: "5xx"}
_OWN_CAUSES = {
    UNREACHABLE: "unreachable",
    UPSTREAM_BUSY: "busy",
    TOO_MANY_RECIPIENTS: "limit",
    TOO_MANY_RECIPIENTS_PER_MINUTE: "rate",
}
RCPT_CAUSES = ("5yz", "4yz", *_OWN_CAUSES.values())
UPSTREAM_STEPS = ("connect", "greeting", "tls", "ehlo", "login", "mail", "rcpt", "data", "dot", "reclaimed")
PAGE_LOGINS = (LoginOutcome.ACCEPTED, LoginOutcome.CREDENTIALS, LoginOutcome.UNAVAILABLE, LoginOutcome.TOO_MANY)
_AGES = (1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The metrics of one relay, in a registry that only it uses. `rules` are the names of all rules that can match."""

    def __init__(self, rules: Sequence[str] = (DEFAULT,)) -> None:
        registry = self.registry = CollectorRegistry()
        PlatformCollector(registry)
        ProcessCollector(registry=registry)
        GCCollector(registry)
        Info("smtp_dedup_build", "The running version.", registry=registry).info({"version": __version__})
        recipients = Counter(
            "smtp_dedup_recipients",
            "Distinct recipients of messages whose final dot was received, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._recipients = {outcome: recipients.labels(outcome.value) for outcome in Outcome}
        messages = Counter(
            "smtp_dedup_messages",
            "Messages by class of the reply to the final dot; aborted: the client left between DATA and dot.",
            ["reply"],
            registry=registry,
        )
        self._messages = {reply: messages.labels(reply) for reply in (*_REPLIES.values(), ABORTED)}
        self._create_counters_of_rules(registry)
        self.add_rules(rules)
        self.duplicate_age = Histogram(
            "smtp_dedup_duplicate_age_seconds",
            "Age of the accepted message that a suppressed one repeats.",
            buckets=_AGES,
            registry=registry,
        )
        self.message_seconds = Histogram(
            "smtp_dedup_message_seconds", "Time from the final dot to its reply.", buckets=_SECONDS, registry=registry
        )
        rcpt_refused = Counter(
            "smtp_dedup_rcpt_refused",
            "Recipients that were refused at RCPT, by cause: the upstream's 5yz or 4yz, no connection to the upstream, "
            "all connections in use, or a limit of the relay: of the message, or per minute.",
            ["cause"],
            registry=registry,
        )
        self._rcpt_refused = {cause: rcpt_refused.labels(cause) for cause in RCPT_CAUSES}
        self.pool_in_use = Gauge(
            "smtp_dedup_pool_in_use", "Connections to the upstream that transactions use.", registry=registry
        )
        upstream_step = Histogram(
            "smtp_dedup_upstream_step_seconds",
            "Time that the upstream takes for a step of a connection or a transaction; reclaimed: for which a silent "
            "client had kept a connection that others received.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._upstream_steps = {step: upstream_step.labels(step) for step in UPSTREAM_STEPS}
        refused = Counter(
            "smtp_dedup_sessions_refused",
            "Sessions that the relay refused, or ended because of a limit.",
            ["reason"],
            registry=registry,
        )
        self.sessions_refused = {refusal: refused.labels(refusal.reason) for refusal in SessionRefusal}
        logins = Counter("smtp_dedup_logins", "Logins of clients (AUTH), by outcome.", ["outcome"], registry=registry)
        self.logins = {outcome: logins.labels(outcome.value) for outcome in LoginOutcome}
        page_logins = Counter(
            "smtp_dedup_page_logins", "Logins to the web page, by outcome.", ["outcome"], registry=registry
        )
        self._page_logins = {outcome: page_logins.labels(outcome.value) for outcome in PAGE_LOGINS}
        senders_refused = Counter(
            "smtp_dedup_senders_refused",
            "Senders refused at MAIL: the client has not logged in, its login may not use the address, or it sends too "
            "many messages.",
            ["reason"],
            registry=registry,
        )
        self.senders_refused = {
            reason: senders_refused.labels(reason) for reason in ("no_login", "not_allowed", "rate")
        }
        self.exempt = Counter(
            "smtp_dedup_exempt_messages", "Messages that are exempt for all recipients.", registry=registry
        )
        self._add_traces(registry)
        self.claims_lost = Counter(
            "smtp_dedup_claims_lost",
            "Claims that another process took while this process was delivering.",
            registry=registry,
        )
        beyond_bound = Counter(
            "smtp_dedup_claims_beyond_bound",
            "Claims that a full store did not take, and acceptances that a full process dropped before the store had "
            "them. Repeats of both may be forwarded.",
            ["bound"],
            registry=registry,
        )
        self.claims_beyond_bound = {bound: beyond_bound.labels(bound) for bound in ("store", "memory")}
        self.faults = Counter(
            "smtp_dedup_faults",
            "Internal faults of the relay; each is in the log with its traceback.",
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "smtp_dedup_log_lines_dropped",
            "Log lines that were dropped because the log took no more.",
            registry=registry,
        )
        self.memory_refused = Counter(
            "smtp_dedup_memory_refused",
            "Messages that received 452 4.3.1 because limits.memory was used up.",
            registry=registry,
        )
        self.judgements_timed_out = Counter(
            "smtp_dedup_judgements_timed_out",
            "Messages that were forwarded without a fingerprint because their judgement took too long.",
            registry=registry,
        )
        self.in_flight_bytes = Gauge(
            "smtp_dedup_in_flight_bytes", "Memory reserved for the content of messages.", registry=registry
        )
        self.in_flight_limit_bytes = Gauge(
            "smtp_dedup_in_flight_limit_bytes",
            "Bound of smtp_dedup_in_flight_bytes (limits.memory).",
            registry=registry,
        )
        self.waiting_twins = Gauge(
            "smtp_dedup_waiting_twins",
            "Messages that wait for the outcome of a first copy, which this or another process delivers.",
            registry=registry,
        )
        self.sessions = Gauge("smtp_dedup_sessions", "Connected clients.", registry=registry)
        self.claims = Gauge("smtp_dedup_claims", "Claims that transactions of this process hold.", registry=registry)
        self.store_up = Gauge("smtp_dedup_store_up", "1 if the store answers.", registry=registry)
        self.store_degraded = Gauge(
            "smtp_dedup_store_degraded", "1 if the relay works without the store.", registry=registry
        )
        self.observing = Gauge("smtp_dedup_observing", '1 if dedup.mode is "observe".', registry=registry)
        self.reload_successful, self.reload_time = _reload_gauges(registry)
        self.upstream_used = Gauge(
            "smtp_dedup_upstream_used",
            "1 if the upstream is in use, 0 while it is skipped after a failure.",
            ["upstream"],
            registry=registry,
        )
        self.upstream_up = Gauge(
            "smtp_dedup_upstream_up", "1 if the last attempt to reach the upstream succeeded.", registry=registry
        )

    def _create_counters_of_rules(self, registry: CollectorRegistry) -> None:
        self._repeats_of_rules = Counter(
            "smtp_dedup_repeats",
            "Recipients of repeats, by the rule that matched and by outcome.",
            ["rule", "outcome"],
            registry=registry,
        )
        self._recipients_of_rules = Counter(
            "smtp_dedup_rule_recipients",
            "Recipients of judged messages, by the rule that matched.",
            ["rule"],
            registry=registry,
        )
        self._interrupted_of_rules = Counter(
            "smtp_dedup_interrupted_repeats",
            "Recipients of equal messages that are no repeats because another mail of the sender came in between, by "
            "the consecutive rule that matched.",
            ["rule"],
            registry=registry,
        )
        self._repeats: dict[tuple[str, Outcome], Counter] = {}
        self._interrupted: dict[str, Counter] = {}
        self._matched: dict[str, Counter] = {}

    def add_rules(self, rules: Iterable[str]) -> None:
        """Adds the label sets of rules. Those of rules that are gone stay: counters go on until the end."""
        for rule in rules:
            self._matched[rule] = self._recipients_of_rules.labels(rule)
            for outcome in (outcome for outcome in Outcome if outcome in REPEATS):
                self._repeats[rule, outcome] = self._repeats_of_rules.labels(rule, outcome.value)
            if rule != DEFAULT:
                self._interrupted[rule] = self._interrupted_of_rules.labels(rule)

    def reloaded(self, now: float | None) -> None:
        """Notes the end of a reload, or the start: `now` in seconds since the Unix epoch, None if it failed."""
        self.reload_successful.set(now is not None)
        if now is not None:
            self.reload_time.set(now)

    def _add_traces(self, registry: CollectorRegistry) -> None:
        self.records_lost = Counter(
            "smtp_dedup_records_lost",
            "Traces of messages, or kept copies, that could not be written.",
            registry=registry,
        )
        self.traces_skipped = Counter(
            "smtp_dedup_traces_skipped",
            "Transactions without a message that left no trace, because there were too many of them.",
            registry=registry,
        )
        self.traces_waiting = Gauge(
            "smtp_dedup_traces_waiting", "Traces that are not written to their store yet.", registry=registry
        )
        self.trace_up = Gauge("smtp_dedup_trace_up", "1 if the store of traces took the last ones.", registry=registry)

    def message(self, report: Report) -> None:
        """Counts a message and each of its recipients once."""
        self._messages[_REPLIES[report.reply.code // 100]].inc()
        self.message_seconds.observe(report.seconds)
        for outcome, count in report.counts().items():
            self._recipients[outcome].inc(count)
        matched: dict[str, int] = {}  # not a `Counter`, which takes 3 us more for one recipient
        for ruling in report.rulings.values():
            matched[ruling.rule] = matched.get(ruling.rule, 0) + 1
        for rule, count in matched.items():
            if rule in self._matched:  # else it is the reason of an exemption, such as a null reverse-path
                self._matched[rule].inc(count)
        for recipient, result in report.results.items():
            if result.outcome in REPEATS:
                self._repeats[report.rulings[recipient].rule, result.outcome].inc()
            if result.original is not None:
                self.duplicate_age.observe(result.age)
        for recipient in report.not_suppressed:
            self._interrupted[report.rulings[recipient].rule].inc()
        if report.exempt:
            self.exempt.inc()

    def totals(self) -> dict[str, dict[str, int]]:
        """Returns the counts of messages by class of the reply, and of recipients by outcome."""
        return {"messages": _counts(self._messages), "recipients": _counts(self._recipients)}

    def repeats(self) -> dict[tuple[str, str], int]:
        """Returns the counts of recipients of repeats, by rule and outcome."""
        return {(rule, outcome.value): _count(counter) for (rule, outcome), counter in self._repeats.items()}

    def matched(self) -> dict[str, int]:
        """Returns the counts of recipients by the rule that matched."""
        return {rule: _count(counter) for rule, counter in self._matched.items()}

    def page_login(self, outcome: LoginOutcome) -> None:
        """Counts a login to the page."""
        self._page_logins[outcome].inc()

    def recipient_refused(self, reply: Reply) -> None:
        """Counts a recipient that was refused at RCPT with this reply."""
        cause = _OWN_CAUSES.get(reply) or ("5yz" if reply.permanent else "4yz")
        self._rcpt_refused[cause].inc()

    def upstream_step(self, step: str, seconds: float) -> None:
        """Observes how long a step of an upstream's connection or transaction took."""
        self._upstream_steps[step].observe(seconds)

    def aborted(self) -> None:
        """Counts a message whose client disconnected before the final dot."""
        self._messages[ABORTED].inc()

    def set_store(self, up: bool) -> None:
        """Sets whether the store answers."""
        self.store_up.set(up)
        self.store_degraded.set(not up)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Returns the exposition and its content type: OpenMetrics if `accept` asks for it, else Prometheus text."""
        encode: Callable[[CollectorRegistry], bytes]
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _counts(counters: Mapping[Outcome, Counter] | Mapping[str, Counter]) -> dict[str, int]:
    return {str(label): _count(counter) for label, counter in counters.items()}


def _count(counter: Counter) -> int:
    return int(next(iter(counter.collect())).samples[0].value)  # the second sample is the time of its creation


def _reload_gauges(registry: CollectorRegistry) -> tuple[Gauge, Gauge]:
    return (
        Gauge(
            "smtp_dedup_config_last_reload_successful",
            "1 if the settings were read without an error at the start and at the last reload.",
            registry=registry,
        ),
        Gauge(
            "smtp_dedup_config_last_reload_success_timestamp_seconds",
            "When settings were read last without an error, in seconds since 1970.",
            registry=registry,
        ),
    )
