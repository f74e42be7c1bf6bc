"""What a client or a broken server could repeat without end is one line a minute, with the number of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from parts.logged import events

from relay.core.login import LoginOutcome
from relay.events.limit import LOG_EVERY
from relay.monitor.logs import MessageLog
from relay.monitor.metrics import Metrics
from relay.monitor.reporter import LogAndMetricsReporter

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Seconds that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> LogAndMetricsReporter:
    return LogAndMetricsReporter(Metrics(), MessageLog(addresses=True), clock)


@pytest.mark.parametrize(
    "report",
    [
        *(
            lambda reporter, outcome=outcome: reporter.login("192.0.2.1", "anna", outcome)
            for outcome in set(LoginOutcome) - {LoginOutcome.CREDENTIALS, LoginOutcome.ACCEPTED}
        ),
        *(
            lambda reporter, reason=reason: reporter.sender_refused("192.0.2.1", "anna", reason)
            for reason in ("no_login", "not_allowed", "rate")
        ),
    ],
)
def test_what_costs_a_client_nothing_is_logged_once_a_minute(
    reporter: LogAndMetricsReporter,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    report: Callable[[LogAndMetricsReporter], Any],
) -> None:
    for _ in range(1000):
        report(reporter)
    clock.now = LOG_EVERY
    report(reporter)
    assert [fields["times"] for *_, fields in events(caplog)] == [1, 1000]


def test_a_user_who_floods_the_log_does_not_hide_another(
    reporter: LogAndMetricsReporter, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("anna", "anna", "bert"):
        reporter.sender_refused("192.0.2.1", name, "not_allowed")
    assert [fields["login"] for *_, fields in events(caplog)] == ["anna", "bert"]


def test_each_wrong_password_has_a_line(reporter: LogAndMetricsReporter, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        reporter.login("192.0.2.1", "anna", LoginOutcome.CREDENTIALS)
    assert [(text, fields["times"]) for _, text, fields in events(caplog)] == [("login refused", 1)] * 3


def test_each_fault_has_a_line_and_one_a_minute_its_traceback(
    reporter: LogAndMetricsReporter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The reply 451 names the record, so the log must have it."""
    for record, error in (("a", ValueError("x")), ("b", ValueError("y")), ("c", KeyError("z"))):
        reporter.fault(record, "judge", error)
    clock.now = LOG_EVERY
    reporter.fault("d", "judge", ValueError("x"))
    lines = [(line.fields["record"], line.fields["error"], bool(line.exc_info)) for line in caplog.records]
    assert lines == [
        ("a", "ValueError('x')", True),
        ("b", "ValueError('y')", False),
        ("c", "KeyError('z')", True),
        ("d", "ValueError('x')", True),
    ]
