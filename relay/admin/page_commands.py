"""The commands that the web page uses (`relay.page.commands`), by the code of the admin API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from relay.admin.release import ReleaseRequest
from relay.core.errors import AdminError, RelayError
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from relay.admin.actions_api import ActionsApi
    from relay.admin.records_api import RecordsApi
    from relay.admin.release import Released
    from relay.records.selection import Selection


T = TypeVar("T")


_LONGEST = 20.0
"""Seconds that a browser waits. Less than `http_connections.REQUEST_EVERY`."""


@dataclass(frozen=True, slots=True)
class PageCommands:
    """Releases copies and frees acceptances."""

    records: RecordsApi
    actions: ActionsApi
    longest: float = _LONGEST
    _releases: Tasks = field(default_factory=Tasks)

    async def release_copy(self, record: str) -> Released:
        """Sends a kept copy to those who did not get it. Raises `RelayError`; a slow release goes on."""
        remedy = "the release goes on; open the message later: its page says whether the copy was released"
        # Not cancelled at the limit: a release that waits for an earlier one would be dropped.
        release = self._releases.start(self._release(record), f"release {record}")
        result = await _within(self.longest, asyncio.shield(release), remedy)
        if isinstance(result, RelayError):
            raise result
        return result

    async def _release(self, record: str) -> Released | RelayError:
        # `Tasks` logs exceptions, and this one is shown on the page.
        try:
            return await self.actions.release(ReleaseRequest(record))
        except RelayError as error:
            return error

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number. Raises `RelayError`."""
        return await _within(self.longest, self.records.forget(selection), "try again, or use relay forget")


async def _within(limit: float, work: Awaitable[T], remedy: str) -> T:
    try:
        async with asyncio.timeout(limit):
            return await work
    except TimeoutError:
        raise AdminError(f"no result within {limit:g} s; {remedy}") from None
