"""The result of a simulation as data, for `--json` and for the text report."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from relay.judge.mime.headers import decode_value, field_values, unfold
from relay.judge.mime.parser import parse
from relay.simulate.replay import GAPS

if TYPE_CHECKING:
    from relay.simulate.archive import Archive
    from relay.simulate.near_misses import NearMissGroup
    from relay.simulate.replay import CopyGroup, Replay

VERSION = 1
"""The version of the result. A new field does not raise it; a changed or removed field does."""
_LONGEST_SUBJECT = 100
_SHOWN_PROBLEMS = 1_000


def build_result(archive: Archive, replay: Replay, *, top: int) -> dict[str, Any]:
    """Returns all counts, and the `top` most frequent groups and near misses. It contains no addresses."""
    totals = replay.totals
    groups = sorted(replay.groups.values(), key=lambda group: (-group.repeats, -group.copies, group.number))
    near_misses = sorted(replay.near_misses.groups.values(), key=lambda group: (-group.pairs, group.number))
    return {
        "version": VERSION,
        "messages": totals.messages,
        "from": _moment(min(archive.dates, default=None)),
        "to": _moment(max(archive.dates, default=None)),
        "recipients": totals.recipients,
        "window_seconds": replay.window,
        "suppressed": {
            "recipients": totals.suppressed,
            "messages": totals.suppressed_wholly,
            "messages_in_part": totals.suppressed_partly,
            "observed_recipients": totals.observed,
            "mail_between": totals.mail_between,
            "same_message_id": totals.same_message_id,
        },
        "rules": [
            {
                "rule": ruling.rule,
                "action": ruling.action.value,
                "window_seconds": ruling.window,
                "recipients": counts.recipients,
                "repeats": counts.repeats,
            }
            for ruling, counts in sorted(replay.by_ruling.items(), key=lambda item: (-item[1].repeats, item[0].rule))
        ],
        "windows": [
            {"window_seconds": window, "recipients": count}
            for window, count in zip(replay.windows, replay.by_window, strict=True)
        ],
        "gaps": [
            {"from_seconds": begin, "to_seconds": end, "copies": count}
            for (begin, end), count in zip(pairwise(GAPS), replay.by_gap, strict=True)
        ],
        "groups_in_all": len(groups),
        "groups": [_group(archive, group) for group in groups[:top]],
        "near_miss_pairs": replay.near_misses.pairs,
        "near_misses": [_near_miss(archive, group) for group in near_misses[:top]],
        "dates": dict(archive.date_sources.most_common()),
        "addressed_by": dict(totals.recipient_sources.most_common()),
        "reverse_paths": dict(totals.reverse_path_sources.most_common()),
        "broken": dict(totals.broken.most_common()),
        "skipped_files": archive.files.skipped,
        "repeated_files": archive.files.repeated,
        "problems_in_all": len(archive.problems),
        "problems": [problem._asdict() for problem in archive.problems[:_SHOWN_PROBLEMS]],
    }


def _group(archive: Archive, group: CopyGroup) -> dict[str, Any]:
    return {
        "subject": _subject(archive, group.number),
        "messages": group.messages,
        "copies": group.copies,
        "repeats": group.repeats,
        "mail_between": group.mail_between,
        "shortest_gap_seconds": group.shortest,
        "longest_gap_seconds": group.longest,
    }


def _near_miss(archive: Archive, group: NearMissGroup) -> dict[str, Any]:
    difference = group.difference
    return {
        "subject": _subject(archive, group.number),
        "pairs": group.pairs,
        "field": difference.label,
        "places": difference.places,
        "before": _text(difference.before),
        "first": _text(difference.first),
        "second": _text(difference.second),
        "after": _text(difference.after),
        "shortest_gap_seconds": group.shortest,
        "longest_gap_seconds": group.longest,
    }


def _subject(archive: Archive, number: int) -> str:
    """Returns the subject. It is read again, so that it need not be kept for every message."""
    archived = archive.read(number)
    found = field_values(parse(archived.content).fields, "subject") if archived else []
    if not found:
        return ""
    decoded = decode_value(found[0])
    text = _text(unfold(found[0]).strip() if decoded is None else decoded)
    return text if len(text) <= _LONGEST_SUBJECT else text[: _LONGEST_SUBJECT - 1] + "…"


def _text(octets: bytes) -> str:
    # In a normalised form NUL stands for an ignored piece. A piece may begin or end inside a character.
    return octets.decode("utf-8", "replace").replace("\0", "[ignored]")


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
