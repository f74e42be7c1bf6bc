"""What the commands about traces share: reading their arguments, and writing times and durations."""

from __future__ import annotations

import re
import time

import click

_ID = re.compile(r"[0-9a-fA-F]{12}")
# RFC 5321 section 4.1.1.3: postmaster is the one address that needs no domain.
_QUERY = re.compile(r"(?is)[0-9a-f]{12}|h:[0-9a-f]{16}|postmaster|<.+>|.*@.*")
"""From how many seconds on a unit is used, its length in seconds, and its name."""


def parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Returns the seconds of a duration flag, such as `90s`, `10m` or `2d`."""
    from relay.settings.units import parse_duration as parse

    del ctx, param
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_record_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Returns the ID of a trace in lower case."""
    del ctx, param
    if not _ID.fullmatch(value.strip()):
        raise click.BadParameter("not the id of a trace, which has 12 hexadecimal digits; relay suppressed lists them")
    return value.strip().lower()


def parse_query(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Checks an argument that is an ID, a Message-ID, an address or the hash of an address."""
    from relay.runtime.terminal import printable

    del ctx, param
    if value is None or _QUERY.fullmatch(value.strip()):
        return value
    fault = f"'{printable(value)}' is no address, id or Message-ID" if value.strip() else "it is empty"
    raise click.BadParameter(f"{fault}; write NAME@DOMAIN, the 12 hexadecimal digits of a trace, or <MESSAGE-ID>")


def parse_search(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Checks an argument that is searched for: it may have any form, since a queue id has."""
    from relay.trace.search import LONGEST

    del ctx, param
    if value is not None and not 0 < len(value.strip()) <= LONGEST:
        fault = f"it has more than {LONGEST} characters" if value.strip() else "it is empty"
        raise click.BadParameter(f"{fault}; write an address, an id, a <MESSAGE-ID> or a queue id")
    return value


def timestamp(seconds: float) -> str:
    """Formats seconds since the Unix epoch as the log does, but without fractions: `2025-03-01T10:00:34Z`."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
