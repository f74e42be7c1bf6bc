"""Pairs of AVideo's mails: those that a reader cannot tell apart, and those that a reader can."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from parts.avideo import (
    AGAIN,
    FIRST,
    comment,
    contact_form,
    going_live,
    notification,
    receipt,
    recovery,
    two_factor,
    verification,
    with_attachment,
)

ANNA, BERT, CARL = (f"{name}@subscriber.example.test" for name in ("anna", "bert", "carl"))


@dataclass(frozen=True)
class Pair:
    """Two mails, the second sent after the first. `why` is the reason why a reader can or cannot tell them apart."""

    name: str
    why: str
    a: bytes
    b: bytes
    a_recipients: tuple[str, ...] = (ANNA,)
    b_recipients: tuple[str, ...] = (ANNA,)

    def __str__(self) -> str:
        return self.name


_CACHE_FORMS = {
    "20 digits": ("?cache=17412345671741234567", "?cache=17412346891741234690"),
    "20 digits after ampersand": ("?w=5&cache=17412345671741234567", "?w=5&cache=17412346891741234690"),
    "20 digits after amp entity": ("?w=5&amp;cache=17412345671741234567", "?w=5&amp;cache=17412346891741234690"),
    "10 digits, 10 digits": ("?cache=1741234567_1741234567", "?cache=1741234689_1741234690"),
    "10 digits": ("?cache=1741234567", "?cache=1741234689"),
    "13 hex digits": ("?cache=67c9a1b2c3d4e", "?cache=67c9a22ff0a1b"),
    "not found at first": ("?cache=not_found", "?cache=17412346891741234690"),
    "not found at last": ("?cache=1741234567_1741234567", "?cache=not_found"),
    "bare number": ("?1624465305", "?1624465427"),
}
"""The text after the thumbnail's name, at the first send and two minutes later."""


def _cache_pairs() -> list[Pair]:
    why = "the thumbnail is the same picture under a number that changes whenever its file is touched"
    return [
        Pair(
            f"cache value: {form}, {quoting} quotes",
            why,
            notification(cache=first, quote=quote),
            notification(cache=second, quote=quote, sending=AGAIN),
        )
        for form, (first, second) in _CACHE_FORMS.items()
        for quoting, quote in (("single", "'"), ("double", '"'))
    ]


_SAME_SECOND = dataclasses.replace(FIRST, seed="2")
_TO_ANNA = dataclasses.replace(AGAIN, to=ANNA)

EQUAL_PAIRS = [
    Pair(
        "same second",
        "only the random id of the send differs",
        notification(),
        notification(sending=_SAME_SECOND),
    ),
    Pair("two minutes apart", "Date and random id differ", notification(), notification(sending=AGAIN)),
    *_cache_pairs(),
    Pair(
        "cache value of the logo",
        "the logo is the same picture too",
        notification(logo_cache="?cache=1741234567"),
        notification(logo_cache="?cache=1741234689", sending=AGAIN),
    ),
    Pair(
        "cache value of a user's photo, PNG",
        "pictures are not only JPEG",
        going_live(cache="?cache=1741234567"),
        going_live(cache="?cache=1741234689", sending=AGAIN),
    ),
    Pair(
        "other chunking: A and B, then B and A",
        "the order of the envelope is not the reader's",
        notification(),
        notification(sending=AGAIN),
        (ANNA, BERT),
        (BERT, ANNA),
    ),
    Pair(
        "other chunking: A and B, then A alone",
        "a last chunk of one gets a personal To field",
        notification(),
        notification(sending=_TO_ANNA),
        (ANNA, BERT),
        (ANNA,),
    ),
    Pair(
        "partly overlapping recipients",
        "B is in both chunks, and the chunks carry the same mail",
        notification(),
        notification(sending=AGAIN),
        (ANNA, BERT),
        (BERT, CARL),
    ),
    Pair(
        "quoted-printable against 8bit",
        "the encoding is the transport's business",
        notification(),
        notification(sending=dataclasses.replace(AGAIN, encoding="quoted-printable")),
    ),
    Pair(
        "base64 against 8bit",
        "the encoding is the transport's business",
        notification(),
        notification(sending=dataclasses.replace(AGAIN, encoding="base64")),
    ),
    Pair(
        "contact form, double click",
        "the same visitor wrote the same words",
        contact_form("eva@example.test"),
        contact_form("eva@example.test", sending=AGAIN),
    ),
    Pair(
        "report with its attachment",
        "the file is the same",
        with_attachment(b"a;b\r\n1;2\r\n"),
        with_attachment(b"a;b\r\n1;2\r\n", sending=AGAIN),
    ),
]

_OLD_TOKEN, _NEW_TOKEN = "5f2c1e7a9b", "e8d40c3b61"

DIFFERENT_PAIRS = [
    Pair(
        "two password recoveries",
        "the second link has replaced the first one, which no longer works",
        recovery(_OLD_TOKEN),
        recovery(_NEW_TOKEN),
    ),
    Pair(
        "two address verifications",
        "the second code has replaced the first one",
        verification(_OLD_TOKEN),
        verification(_NEW_TOKEN),
    ),
    Pair(
        "two two-factor mails",
        "the second login waits for the second link",
        two_factor(_OLD_TOKEN),
        two_factor(_NEW_TOKEN),
    ),
    Pair(
        "same template, another video",
        "the button leads somewhere else",
        notification(video="9d1f4b7c"),
        notification(video="9d1f4b7d", sending=AGAIN),
    ),
    Pair(
        "same title, other video, same cache value",
        "two videos may carry one title",
        notification(title="Live", video="00000001"),
        notification(title="Live", video="00000002"),
    ),
    Pair(
        "titles that differ in an emoji",
        "a reader sees it",
        notification(title="Lake 🌅"),
        notification(title="Lake 🌄"),
    ),
    Pair(
        "titles that differ in a dash",
        "a reader sees it",
        notification(title="Lake — 2"),
        notification(title="Lake - 2"),
    ),
    Pair(
        "comments that differ by one word",
        "a reader sees it",
        comment("I really like the second part"),
        comment("I really love the second part", sending=AGAIN),
    ),
    Pair("receipts that differ by the amount", "a reader counts it", receipt("9.99 EUR"), receipt("9.89 EUR")),
    Pair(
        "same body from another From",
        "the answers go to two people",
        contact_form("eva@example.test"),
        contact_form("ute@example.test", sending=AGAIN),
    ),
    Pair(
        "same text from another display name",
        "a reader sees it",
        going_live(),
        going_live(sending=dataclasses.replace(AGAIN, name="Another Tube")),
    ),
    Pair(
        "same text with another attachment",
        "the file is the mail",
        with_attachment(b"a;b\r\n1;2\r\n"),
        with_attachment(b"a;b\r\n1;3\r\n", sending=AGAIN),
    ),
    Pair(
        "same attachment under another name",
        "a reader sees it",
        with_attachment(b"a;b\r\n", name="march.csv"),
        with_attachment(b"a;b\r\n", name="april.csv", sending=AGAIN),
    ),
    Pair(
        "a cache value on a link that is no picture",
        "there it may be a key",
        notification(link_query="?cache=17412345671741234567"),
        notification(link_query="?cache=17412346891741234690"),
    ),
    Pair(
        "a bare number on a link that is no picture",
        "there it may be an order",
        notification(link_query="?1624465305"),
        notification(link_query="?1624465427"),
    ),
    Pair(
        "a picture's parameter that is not the cache value",
        "it may choose another picture",
        notification(cache="?frame=1741234567"),
        notification(cache="?frame=1741234689"),
    ),
]
