"""Parses the arguments of MAIL and RCPT (RFC 5321 section 4.1.2). Called by `relay.smtp.protocol`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.core import reply as replies

if TYPE_CHECKING:
    from relay.core.reply import Reply

# Path = "<" [ A-d-l ":" ] Mailbox ">". A source route is ignored (appendix C). A quoted local-part may contain any
# printable character. Some clients omit the brackets; such a path cannot contain spaces.
_QUOTED = rb'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"'
_ARGUMENT = re.compile(
    rb"\s*(?:<(?:@[^:<>\s]*:)?(?P<path>(?:" + _QUOTED + rb"|[^<>\"\s\x00-\x1f\x7f])*)>"
    rb"|(?P<bare>[^<>\"\s\x00-\x1f\x7f]+))(?P<parameters>(?:[ \t]+[^\s\x00-\x1f\x7f]+)*)[ \t]*"
)
_LONGEST_PATH = 1000
"""Bytes."""


def parse_path(argument: bytes, keyword: bytes) -> tuple[bytes, list[bytes]] | Reply:
    """Returns the path without its brackets, and the parameters; or the reply that refuses the argument.

    Example: `parse_path(b"FROM:<a@example.org> SIZE=10", b"FROM:")` returns `(b"a@example.org", [b"SIZE=10"])`.
    """
    if argument[: len(keyword)].upper() != keyword:
        return replies.BAD_SYNTAX
    match = _ARGUMENT.fullmatch(argument[len(keyword) :])
    if not match:
        return replies.BAD_ADDRESS
    path = match["path"] if match["path"] is not None else match["bare"]
    if len(path) > _LONGEST_PATH:
        return replies.BAD_ADDRESS
    return path, match["parameters"].split()
