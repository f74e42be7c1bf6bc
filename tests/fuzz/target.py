"""What must hold for any bytes. Raises AssertionError, or whatever the judge raises, where it does not."""

from __future__ import annotations

import time
import tracemalloc
import zlib

from parts.remembered import clear_caches

from relay.core.envelope import Recipient, fold
from relay.core.ruling import Action
from relay.judge.judge import Judge, MessageAnalysis
from relay.judge.rules.ignore import (
    Attribute,
    Calendar,
    Comment,
    ContentIds,
    Header,
    Parameter,
    PartParameter,
    Pdf,
    Query,
    Text,
    UrlKind,
)
from relay.judge.rules.pattern import Pattern
from relay.judge.rules.rule import Condition, MatchTarget, Rule

SECONDS = 3.0
"""CPU time that one input may take."""
MEMORY_RATIO = 10
MEMORY_BASE = 4 << 20
"""Bytes in addition to ten times the size of an input: one chunk of each loop."""
_MEASURE_EVERY = 16
"""One in this many inputs has its memory measured, which is slow. The CRC of the input decides."""
_CLEAR_EVERY = 4
"""For one in this many inputs all caches are cleared before the second judgement."""

_RECIPIENTS = (Recipient("bob@example.org"), Recipient("eve@example.org"))


def _rule(name: str, action: Action, target: MatchTarget, pattern: str, header: str = "") -> Rule:
    return Rule(name, action, (Condition(target, (Pattern(pattern),), header),))


# Together the rules have every condition, so that each one is tested. It does not matter which rule matches.
_RULES = (
    _rule("link", Action.EXEMPT, MatchTarget.LINK, r"(?i)(?:pass|code|token|confirmation)=[^&]"),
    _rule("header", Action.EXEMPT, MatchTarget.HEADER, "(?i)^(?:high|1)", "x-priority"),
    _rule("from", Action.OBSERVE, MatchTarget.FROM, r"@example\.org>?$"),
    _rule("reverse path", Action.DEDUPE, MatchTarget.REVERSE_PATH, "^never$"),
    Rule(
        "ignoring",
        Action.DEDUPE,
        (Condition(MatchTarget.RECIPIENT, (Pattern("^eve@"),)), Condition(MatchTarget.SUBJECT, (Pattern(".*"),))),
        ignore=(Text("digits", Pattern("[0-9]+")), Comment("all comments", Pattern(""))),
    ),
    Rule("attachment", Action.DEDUPE, attachment=True),
)
_IGNORE = (
    Parameter("cache value", "cache", UrlKind.IMAGE, Pattern("[0-9a-f_]+|not_found")),
    Parameter("campaign", "utm_source"),
    Query("bare number", Pattern("[0-9]{10}"), UrlKind.ANY, Pattern(r"\.jpe?g$")),
    Text("time", Pattern("[0-9]{2}:[0-9]{2}(?::[0-9]{2})?")),
    Attribute("style", "style", Pattern(".*")),
    Attribute("generated id", "id", Pattern("[0-9a-f]{8,}")),
    Comment("built at", Pattern("(?i)built")),
    Header("a header field", "reply-to"),
    Calendar("stamp", "DTSTAMP"),
    Pdf("metadata"),
    PartParameter("dates", "creation-date"),
    ContentIds("vml"),
)
PLAIN = Judge(window=600.0)
FULL = Judge(_RULES, _IGNORE, window=600.0)
"""With a rule of every condition and an ignore of every kind."""


def examine(content: bytes) -> None:
    """Judges content without and with rules and ignores, twice each."""
    if zlib.crc32(content) % _MEASURE_EVERY == 0:
        measure(content)
    else:
        _examine(content)


def measure(content: bytes) -> None:
    """Judges content, and checks time and memory against their bounds."""
    _examine(content)  # Loads what is loaded once, such as tables of characters.
    clear_caches()
    start = time.process_time()
    tracemalloc.start()
    try:
        _examine(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"took {seconds:.1f} s of CPU"
    assert peak < MEMORY_BASE + MEMORY_RATIO * len(content), f"{peak} bytes of memory for {len(content)}"


def _examine(content: bytes) -> None:
    plain, full = _judge(PLAIN, content), _judge(FULL, content)
    results = _results(plain), _results(full)
    if zlib.crc32(content) % _CLEAR_EVERY == 0:
        clear_caches()
    assert results[0] == _results(_judge(PLAIN, content)), "two judgements of the same input differ"
    assert results[1] == _results(_judge(FULL, content)), "two judgements of the same input differ, with ignores"
    assert results[0] != _results(_judge(PLAIN, content + b"y")), "a letter at the end does not count"
    everything = plain.normal_form(plain.rule(_RECIPIENTS[0])).fields
    for recipient in _RECIPIENTS:
        form = full.normal_form(full.rule(recipient))
        assert form.ignored or form.fields == everything, "the form lacks something and names no ignore"
    assert full.message_id.isascii()
    fold(content[:300])


def _judge(judge: Judge, content: bytes) -> MessageAnalysis:
    return judge(content, b"contact@example.org")


def _results(judged: MessageAnalysis) -> list[tuple[str, str]]:
    return [(judged.ruling(recipient).rule, judged.fingerprint(recipient)) for recipient in _RECIPIENTS]
