"""Removes mail addresses from texts that other programs wrote, such as an upstream's reply."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r'<?(?:"[^"]*"|[^\s<>"]+)@(?:\[[^\]\s]*\]|[^\s<>,;:()"\']+)>?')


def without_addresses(text: str) -> str:
    """Returns the text with `<address>` in place of each mail address."""
    return _ADDRESS.sub("<address>", text)
