"""Mails of which the page tells: a story of one with copies, and one whose every value is hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parts.listed_traces import trace
from relay.core.claim import Original
from relay.core.trace import RecipientTrace, Step, TraceOutcome

if TYPE_CHECKING:
    from relay.core.trace import Trace

HOSTILE = "x\x1b[31m\x00\u202e\u2066\r\"><script>alert(1)</script>'&"
"""Text that must not reach a browser: markup, an ANSI sequence, controls, formats that turn the text around."""
HOSTILE_SHOWN = "x\\x1b[31m\\x00\\u202e\\u2066\\r&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;"
"""The source of what the page shows in its place."""
FIRST, COPY, REFUSED = "0000000000a1", "0000000000a2", "0000000000a3"
_REPLY = "250 2.0.0 Ok: queued as 4XYZ12"


def mail_with_copies(at: float) -> list[Trace]:
    """A mail that is accepted, a copy 34 s later that is suppressed, and a third that the mail server refuses."""
    original = Original(FIRST, "<first@videos.example>", _REPLY, at + 1)
    forms = {"default": ("Subject 1c9f03a2", "From 77aa0011", "text 0badcafe")}
    return [
        trace(0xA1, at, TraceOutcome.FORWARDED, message_id="<first@videos.example>", size=4096),
        trace(
            0xA2,
            at + 35,
            message_id="<second@videos.example>",
            size=4100,
            helo="other.example.com",
            upstream="",
            recipients=(_repeat("user0@example.org", original),),
            forms=forms,
            ignored={"default": ("avideo: image cache",)},
            steps={Step.UPLOAD: 0.01, Step.CLAIM: 0.005, Step.WAIT: 0.02},
        ),
        trace(
            0xA3,
            at + 95,
            reply="550 5.1.1 no such user",
            message_id="<third@videos.example>",
            recipients=(
                RecipientTrace("user9@example.org", TraceOutcome.REFUSED, "550 5.1.1 no such user", "default"),
                _repeat("user1@example.org", original, TraceOutcome.WOULD_SUPPRESS),
            ),
            forms=forms,
        ),
    ]


def hostile_mail(at: float) -> Trace:
    """A repeat in which each text is `HOSTILE`."""
    names = ("host", "peer", "helo", "login", "sender", "message_id", "subject", "upstream", "reply", "kept")
    recipient = RecipientTrace(
        HOSTILE, TraceOutcome.SUPPRESSED, HOSTILE, HOSTILE, HOSTILE, 5.0, Original(HOSTILE, HOSTILE, HOSTILE, at - 5)
    )
    return trace(
        0xBAD,
        at,
        recipients=(recipient,),
        forms={HOSTILE: (HOSTILE, f"{HOSTILE} 12345678")},
        ignored={HOSTILE: (HOSTILE,)},
        **dict.fromkeys(names, f"{HOSTILE}\udce4"),
    )


def _repeat(
    recipient: str, original: Original, outcome: TraceOutcome = TraceOutcome.SUPPRESSED, rule: str = "default"
) -> RecipientTrace:
    return RecipientTrace(recipient, outcome, _REPLY, rule, "f" * 32, 34.0, original)
