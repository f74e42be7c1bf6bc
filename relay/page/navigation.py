"""The entries of the navigation, in order."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A page in the navigation."""

    path: str
    title: str


ENTRIES = (
    Entry("/", "Overview"),
    Entry("/messages", "Messages"),
    Entry("/rules", "Rules"),
    Entry("/settings", "Settings"),
)
