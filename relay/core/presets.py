"""What AVideo's mails need by default. Data, so that rules can take its place.

The links of recovery, verification and two-factor mails carry a token that replaces the one before: a second copy that
is kept back locks somebody out. Subjects and texts are translated and edited by admins; the links are not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.core.normalise import NormalForm


class LinkForm(NamedTuple):
    """A link by the end of its path and a query parameter that has a value, both in lower case."""

    name: str
    path: bytes
    parameter: bytes


AVIDEO = (
    LinkForm("avideo: password recovery", b"recoverpass?", b"recoverpass="),
    LinkForm("avideo: e-mail verification", b"userverifyemail.php?", b"code="),
    LinkForm("avideo: two-factor sign-in", b"logincontrol/confirm.php?", b"confirmation="),
)

_END_OF_LINK = re.compile(rb"[\s\"'<>]")
_BEFORE_PARAMETER = b"?&;"  # `;` ends the `&amp;` of HTML


def exemption(form: NormalForm) -> str | None:
    """Name the link form because of which the message is never suppressed."""
    for text in form.texts:
        lower = text.lower()
        for link in AVIDEO:
            if _has_link(lower, link):
                return link.name
    return None


def _has_link(text: bytes, link: LinkForm) -> bool:
    at = text.find(link.path)
    while at >= 0:
        found = _END_OF_LINK.search(text, at)
        end = found.start() if found else len(text)
        if _has_parameter(text[at + len(link.path) - 1 : end], link.parameter):
            return True
        at = text.find(link.path, end)
    return False


def _has_parameter(query: bytes, name: bytes) -> bool:
    at = query.find(name)
    while at > 0:
        after = at + len(name)
        value = query[after : after + 1]
        if query[at - 1] in _BEFORE_PARAMETER and value and value != b"&":
            return True
        at = query.find(name, after)
    return False
