"""The names by which a message can be searched, and how a line of a trace shows them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from relay.records.selection import bare
from relay.trace.codec import id_in_line, outcome_in_line, rule_in_line, text_in_line

if TYPE_CHECKING:
    from relay.core.trace import Trace, TraceQuery

_WORD = re.compile(r"[\w.+-]+", re.ASCII)
_SHORTEST_QUEUE_ID = 6


def needles_of(query: TraceQuery) -> list[list[bytes]]:
    """Returns the texts of which the line of a trace that matches contains one of each list."""
    alternatives = [
        [text_in_line(name) for name in query.names if name],
        [id_in_line(name) for name in query.ids],
        [outcome_in_line(outcome) for outcome in query.outcomes],
        [rule_in_line(query.rule)] if query.rule else [],
    ]
    return [needles for needles in alternatives if needles]


def matches(query: TraceQuery, trace: Trace) -> bool:
    """Returns whether a trace is selected by the query."""
    return (
        query.since <= trace.at < query.until
        and (not query.names or not query.names.isdisjoint(names_of(trace)))
        and (not query.ids or trace.id in query.ids)
        and (not query.outcomes or any(to.outcome in query.outcomes for to in trace.recipients))
        and (not query.rule or any(to.rule == query.rule for to in trace.recipients))
    )


def names_of(trace: Trace) -> set[str]:
    """Returns the names by which a message can be searched; see `TraceQuery.names`."""
    names = {trace.id, trace.sender, trace.peer, bare(trace.message_id)}
    replies = {trace.reply}
    for to in trace.recipients:
        names.add(to.recipient)
        replies.add(to.reply)
        if to.original is not None:
            names |= {to.original.id, bare(to.original.message_id)}
            replies.add(to.original.reply)
    for reply in replies:
        names.update(queue_ids(reply))
    return names - {""}


def queue_ids(reply: str) -> list[str]:
    """Returns the words in an upstream's reply that may be the queue id of the message.

    Those are the word after `queued as`, and other words with a digit. In Postfix an id is `4XYZ12`, in Exim
    `1rAbcD-000001-2x`; in sendmail's reply it is the first word, in Gmail's one of the last. An enhanced status code is
    too short for one.
    """
    found = [word for word in _WORD.findall(reply) if len(word) >= _SHORTEST_QUEUE_ID and not word.isalpha()]
    found += _WORD.findall(reply.partition("queued as ")[2])[:1]
    return [word.strip(".") for word in found]
