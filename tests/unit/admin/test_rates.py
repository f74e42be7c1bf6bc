"""What was counted in the last minutes."""

from __future__ import annotations

from relay.admin.rates import Rates


def test_counts_of_the_last_minutes_are_differences() -> None:
    now, count = 0.0, 0
    rates = Rates(lambda: {"messages": {"2xx": count}}, lambda: now)
    for _ in range(200):  # 1000 s, with a message in each
        now, count = now + 5.0, count + 5
        rates.take()
    assert rates.within(60.0) == {"messages": {"2xx": 60}}
    assert rates.within(300.0) == {"messages": {"2xx": 300}}


def test_soon_after_the_start_they_are_those_since_the_start() -> None:
    now, count = 100.0, 0
    rates = Rates(lambda: {"messages": {"2xx": count}}, lambda: now)
    now, count = 102.0, 3
    assert rates.within(60.0) == {"messages": {"2xx": 3}}


def test_a_loop_that_stood_still_does_not_break_them() -> None:
    now, count = 0.0, 0
    rates = Rates(lambda: {"messages": {"2xx": count}}, lambda: now)
    now, count = 5000.0, 7
    assert rates.within(60.0) == {"messages": {"2xx": 7}}
