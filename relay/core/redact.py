"""Takes mail addresses out of texts that others wrote, such as an upstream's reply."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r'<?(?:"[^"]*"|[^\s<>"]+)@(?:\[[^\]\s]*\]|[^\s<>,;:()"\']+)>?')


def without_addresses(text: str) -> str:
    """Put a word in place of each mail address."""
    return _ADDRESS.sub("<address>", text)
