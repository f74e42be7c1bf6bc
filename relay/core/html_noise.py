"""What does not count in HTML: AVideo's image cache-busters, and generated Content-IDs.

Only inside the attributes of strictly written tags. Text, comments, scripts and whatever a browser shows as text stay
as they are, and from the first tag on that could be read in two ways nothing is left out any more. Works on folded
text, in which the only white space is single spaces; what is left out becomes NUL, which no folded text holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_ORDINALS: Mapping[bytes, int] = {}

_ATTRIBUTE = rb" ([^ \"'<>/=]+)(?: ?= ?(\"[^\"]*\"|'[^']*'|[^ \"'=<>`]+))?"
_ATTRIBUTES = rb"(?:" + re.sub(rb"\((?!\?)", rb"(?:", _ATTRIBUTE) + rb"){0,100} ?/?>"
# HTML Living Standard, section 13.2.5 (tokenization). The elements under `text` hold text only, those under `stop`
# switch to rules that depend on the reader or on what stands inside.
_TOKEN = re.compile(
    rb"<(?:(?P<comment>!--)"
    rb"|(?P<stop>(?:script|noscript|svg|math|plaintext|template|frameset|select)\b)"
    rb"|(?P<text>style|title|textarea|xmp|iframe|noembed|noframes)%b"
    rb"|(?P<tag>/?[a-z][a-z0-9:-]*%b)"
    rb"|(?P<declaration>[!?][^>]*>)"
    rb"|(?P<unclear>[a-z/!?]))" % (_ATTRIBUTES, _ATTRIBUTES),
    re.IGNORECASE,
)
# Text and tags in which there is nothing to do, as many as there are: most of a message, in one step.
_BORING = re.compile(
    rb"(?:[^<]*<(?!(?:img|script|noscript|svg|math|plaintext|template|frameset|select"
    rb"|style|title|textarea|xmp|iframe|noembed|noframes)\b)/?[a-z][a-z0-9:-]*%b){0,200}" % _ATTRIBUTES,
    re.IGNORECASE,
)
_ATTRIBUTE_IN_TAG = re.compile(_ATTRIBUTE)
_IMG = re.compile(rb"<img[ />]", re.IGNORECASE)
# Comments that end earlier for a browser than for us.
_ODD_COMMENTS = (b"<!-->", b"<!--->", b"--!>")
_BARE_NUMBER_HINT = re.compile(rb"\?[0-9]{10}[\"']")
_CACHE_PARAMETER = re.compile(
    rb"((?:\A|&(?:amp;)?)cache=)(?:[0-9]{20}|[0-9]{10}(?:_[0-9]{10})?|[0-9a-f]{13}|not_found)(?=&|\Z)"
)
_BARE_NUMBER = re.compile(rb"[0-9]{10}")
_IMAGE_PATH = re.compile(rb"\.(?:jpe?g|png|gif|webp)\Z", re.IGNORECASE)
_AFTER_NAME = (b" ", b"/", b">")
_CID_ATTRIBUTES = frozenset((b"src", b"background"))
# `cid:` in any other place or spelling: then the ids are not noise.
_CID = re.compile(
    rb"cid:|&#(?:0*(?:67|99|73|105|68|100|58)|x0*(?:43|63|49|69|44|64|3a))(?![0-9a-f])|&colon", re.IGNORECASE
)


def leave_out_noise(html: bytes, ordinals: Mapping[bytes, int] = NO_ORDINALS) -> bytes:
    """Take the cache-busters out, and put the ordinal of a leaf in the place of its Content-ID."""
    last = len(html) if ordinals else _last_candidate(html)
    if last < 0 or any(odd in html for odd in _ODD_COMMENTS):
        return html
    lower = html.lower()
    pieces: list[bytes] = []
    done = at = 0
    while token := _TOKEN.search(html, at if ordinals else _end_of_boring(html, at, last)):
        at = token.end()
        if token.start() > last:
            break
        kind = token.lastgroup
        if kind == "tag":
            quiet = _quiet_tag(token[0], ordinals)
            if quiet is not token[0]:
                pieces += (html[done : token.start()], quiet)
                done = at
        elif kind == "comment":
            at = html.find(b"-->", at)
        elif kind == "text":
            at = _end_of_text(lower, token["text"].lower(), at)
        elif kind != "declaration":
            break
        if at < 0:
            break
    pieces.append(html[done:])
    return b"".join(pieces)


def refers_to_ids(html: bytes) -> bool:
    """Say whether a reference by Content-ID is left that was not understood."""
    return _CID.search(html) is not None


def _last_candidate(html: bytes) -> int:
    """Give the place behind which no tag with a cache-buster begins, or -1."""
    last = html.rfind(b"cache=")
    for found in _BARE_NUMBER_HINT.finditer(html, last + 1):
        last = found.start()
    return last


def _end_of_boring(html: bytes, at: int, last: int) -> int:
    found = _BORING.match(html, at, max(at, last))
    return found.end() if found else at


def _end_of_text(lower: bytes, name: bytes, at: int) -> int:
    """Find the end tag of an element in which nothing else is a tag."""
    end = b"</" + name
    at = lower.find(end, at)
    while at >= 0 and lower[at + len(end) : at + len(end) + 1] not in _AFTER_NAME:
        at = lower.find(end, at + len(end))
    return at


def _quiet_tag(tag: bytes, ordinals: Mapping[bytes, int]) -> bytes:
    image = _IMG.match(tag) is not None
    if not image and not (ordinals and b"cid:" in tag.lower()):
        return tag
    names = [name.lower() for name, _ in _ATTRIBUTE_IN_TAG.findall(tag)]

    def quiet(attribute: re.Match[bytes]) -> bytes:
        name, value = attribute[1].lower(), attribute[2]
        if name not in _CID_ATTRIBUTES or names.count(name) > 1 or not value or value[0] not in b"\"'":
            return attribute[0]
        url = value[1:-1]
        if url[:4].lower() == b"cid:" and url[4:] in ordinals:
            url = b"\0leaf %d" % ordinals[url[4:]]
        elif image and name == b"src":
            url = _quiet_url(url)
        return attribute[0][: -len(value)] + value[:1] + url + value[-1:]

    result = _ATTRIBUTE_IN_TAG.sub(quiet, tag)
    return tag if result == tag else result


def _quiet_url(url: bytes) -> bytes:
    path, mark, query = url.partition(b"?")
    if not mark or b"#" in url:
        return url
    if _BARE_NUMBER.fullmatch(query):
        return path + b"?\0" if _IMAGE_PATH.search(path) else url
    return path + mark + _CACHE_PARAMETER.sub(rb"\1" + b"\0", query)
