"""A fault in a guarded block is reported and ends the block only."""

from __future__ import annotations

import asyncio

import pytest

from relay.runtime.guard import Guard


def guarded(error: BaseException | None, reported: list[Exception]) -> str:
    with Guard(reported.append):
        if error:
            raise error
        return "done"
    return "fallback"


def test_an_exception_is_reported_and_the_code_after_the_block_runs() -> None:
    reported: list[Exception] = []
    error = ValueError("oh")
    assert guarded(error, reported) == "fallback"
    assert reported == [error]


def test_a_block_without_a_fault_reports_nothing() -> None:
    reported: list[Exception] = []
    assert guarded(None, reported) == "done"
    assert not reported


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_cancellation_and_exit_requests_pass(error: BaseException) -> None:
    reported: list[Exception] = []
    with pytest.raises(type(error)):
        guarded(error, reported)
    assert not reported
