"""What the page can have done: the commands `relay release` and `relay forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.records.selection import Selection


class Released(Protocol):
    """What came of a release, for people."""

    @property
    def notes(self) -> Sequence[str]:
        """Who got no copy because an earlier release had sent one."""

    @property
    def answers(self) -> Sequence[str]:
        """The answer of the upstream for each recipient, a line each."""

    @property
    def done(self) -> str:
        """What was done, in one line."""

    @property
    def errors(self) -> Sequence[str]:
        """What to do about recipients for whom the upstream did not accept the copy."""


class Commands(Protocol):
    """The commands of a service, which `relay.admin` implements. They raise `RelayError`."""

    async def release_copy(self, record: str) -> Released:
        """Sends a kept copy to those who did not get it."""

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number."""
