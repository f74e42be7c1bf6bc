"""Keeps a fault in one step from ending the work around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Guard:
    """A `with` block that passes an exception to `report` and ends the block.

    The code after the block says what holds after a fault:

        with Guard(report):
            return await claim(recipients)
        return dict.fromkeys(recipients, Won())

    Cancellation and exit requests pass through.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._report = report

    def __enter__(self) -> None:
        """Begins the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        """Reports an exception and swallows it."""
        if not isinstance(error, Exception):
            return False
        self._report(error)
        return True


class Guards:
    """Makes the guards of one transaction, whose `id` the reports name."""

    def __init__(self, transaction_id: str, report: Callable[[str, str, Exception], None]) -> None:
        self.id = transaction_id
        self._report = report

    def __call__(self, step: str) -> Guard:
        """Returns the guard of a block. `report` receives the id, `step` and the exception."""
        return Guard(lambda error: self._report(self.id, step, error))
