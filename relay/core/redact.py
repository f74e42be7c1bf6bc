"""Removes mail addresses from texts that other programs wrote, such as an upstream's reply."""

from __future__ import annotations

import re

LONGEST = 64 * 1024
"""Characters of a foreign text that are looked at."""
_DOMAIN = r'(?:\[[^\]\s<>"]*\]|[^\s<>,;:()"\']+)'
# Linear: an unquoted local part is tried at the start of a word only, not at each of its characters, and nothing but a
# quoted string reaches beyond a word. The greedy match takes all addresses of one word, such as `a@b,c@d`, together.
_ADDRESS = re.compile(rf'<?(?:"[^"]*"@{_DOMAIN}(?:[^\s<>"]*@{_DOMAIN})?|(?<![^\s<>"])[^\s<>"]+@{_DOMAIN})>?')


def without_addresses(text: str, most: int = LONGEST) -> str:
    """Returns the first `most` characters of the text, with `<address>` in place of each mail address.

    The text is cut after that replacement: half an address would not be recognised.
    """
    if len(text) > LONGEST:
        text = _cut_between_words(text)
    return (_ADDRESS.sub("<address>", text) if "@" in text else text)[:most]


def _cut_between_words(text: str) -> str:
    """Cuts before the word and the quoted string that reach beyond `LONGEST`: they may be the start of an address."""
    text = text[:LONGEST].rpartition(" ")[0]
    return text.rpartition('"')[0] if text.count('"') % 2 else text
