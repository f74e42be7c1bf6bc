"""The kept copies of suppressed messages, as far as the page reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.page.access import Refused
from relay.page.trial import LARGEST
from relay.records.copy_format import DamagedError, decode
from relay.records.kept_copies import KeptCopies

if TYPE_CHECKING:
    from relay.core.record import SuppressedCopy
    from relay.page.site import Site
    from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known about the copy of a message."""

    copy: SuppressedCopy | None = None
    """None if there is none, or none that can be read."""
    released: bool = False
    problem: str = ""
    """Why it cannot be read; empty if it can be, or if there is none."""


async def kept_copy(site: Site, record: str) -> Kept:
    """Returns the kept copy of a message. The page goes without if the disk hangs."""
    settings = site.sources.loaded().settings
    try:
        return await site.work(lambda: _read(settings, record))
    except Refused as refused:
        return Kept(problem=refused.reason)


def _read(settings: Settings, record: str) -> Kept:
    if settings.record.keep is None:
        return Kept()
    try:
        found = KeptCopies(settings.record.keep.path).find(record)
        if found is None:
            return Kept()
        if found.path.stat().st_size > LARGEST:
            return Kept(None, found.released, "it is too large to be shown here")
        return Kept(decode(found.path.read_bytes(), record), found.released)
    except OSError as error:
        return Kept(problem=error.strerror or str(error))
    except DamagedError as error:
        return Kept(problem=str(error))
