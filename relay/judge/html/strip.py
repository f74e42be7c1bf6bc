"""What does not count in HTML: what an operator's ignores find in it, and generated Content-IDs.

Only where it is certain what a browser makes of the source: attributes of strictly written tags, comments, and the
text between them. Scripts, styles and the like stay as they are, and from the first tag on that could be read in two
ways nothing is left out any more. Works on folded text, in which the only white space outside of values is single
spaces; what is left out becomes NUL, which no folded text holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.content_ids import NO_ORDINALS
from relay.judge.rules.ignores import Ignored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from relay.judge.rules.ignores import Ignores
    from relay.judge.rules.url_ignores import IgnoredSpan, ScanBudget, UrlIgnores

# Nothing in it is tried twice (`*+`): what a hostile page could make of it costs no time. Of a group this is written
# `(?>...)`: `(...)*+` matches less than it should, and more, before Python 3.11.5 (gh-106052).
_VALUE = rb"\"[^\"]*+\"|'[^']*+'|[^\s\"'=<>`]++"
_ATTRIBUTE = rb" ([^\s\"'<>/=]++)(?>(?: ?= ?(%b))?)" % _VALUE
_ATTRIBUTES = rb"(?>(?: [^\s\"'<>/=]++(?>(?: ?= ?(?:%b))?)){0,100}) ?/?>" % _VALUE
_STOP = rb"script|noscript|svg|math|plaintext|template|frameset|select"
_TEXT = rb"style|title|textarea|xmp|iframe|noembed|noframes"
# HTML Living Standard, section 13.2.5 (tokenization). The elements under `text` hold text only, those under `stop`
# switch to rules that depend on the reader or on what stands inside. All this is searched in lower case.
_TOKEN = re.compile(
    rb"<(?:(?P<comment>!--)"
    rb"|(?P<stop>(?:%b)\b)"
    rb"|(?P<text>%b)%b"
    rb"|(?P<tag>/?[a-z][a-z0-9:-]*%b)"
    rb"|(?P<declaration>[!?][^>]*>)"
    rb"|(?P<unclear>[a-z/!?]))" % (_STOP, _TEXT, _ATTRIBUTES, _ATTRIBUTES)
)
_ATTRIBUTE_IN_TAG = re.compile(_ATTRIBUTE)
_NAME = re.compile(rb"[a-z][a-z0-9:-]*")
# Where a comment ends earlier for a browser than for us: at its begin, and within.
_ODD_BEGIN = re.compile(rb"-?>")
_ODD_END = b"--!>"
_AFTER_NAME = (b" ", b"/", b">")
_IMAGES = frozenset((b"img",))
_LINKS = frozenset((b"a", b"area"))
# So that it cannot be taken for the mark of a Content-ID, whatever follows.
_MARK_IN_ATTRIBUTE = b"\0\0"
_CID_ATTRIBUTES = frozenset((b"src", b"background"))
# `cid:` in any other place or spelling: then the ids are not noise. Readers pass over line ends and tabs in a URL, and
# over some backslashes in CSS; both HTML and CSS can write any letter as a number.
_CID = re.compile(
    rb"c[\s\\]*+i[\s\\]*+d[\s\\]*+:"
    rb"|&#(?:0*(?:67|99|73|105|68|100|58|9|10|13)(?![0-9])|x0*(?:43|63|49|69|44|64|3a|9|a|d)(?![0-9a-f]))"
    rb"|&(?:colon|tab|newline)|\\[xu]?0*(?:43|63|49|69|44|64|3a)",
    re.IGNORECASE,
)


# Text, tags, declarations and whole styles, as many as there are before some place: most of a message, in one step.
_CLEAR = re.compile(
    rb"(?>(?:[^<]*+<(?:(?!(?:%b|%b)\b)/?[a-z][a-z0-9:-]*+%b"
    rb"|style%b[^<]*+(?>(?:<(?!/style[ />])[^<]*+)*)(?=</style)"
    rb"|(?:!(?!--)|\?)[^>]*+>)){0,200})" % (_STOP, _TEXT, _ATTRIBUTES, _ATTRIBUTES)
)


class StrippedText(NamedTuple):
    """A text without noise: what was left out, and the ordinals of the leaves that it refers to by Content-ID."""

    text: bytes
    ignored: tuple[Ignored, ...] = ()
    referred: frozenset[int] = frozenset()


class _Edit(NamedTuple):
    """A piece to leave out, by offsets; what stands for it; and the ignore, or none for a Content-ID."""

    start: int
    end: int
    mark: bytes
    name: str = ""


def strip_ignored_html(
    html: bytes, noise: Ignores, work: ScanBudget, ordinals: Mapping[bytes, int] = NO_ORDINALS
) -> StrippedText:
    """Leave noise out, and put the ordinal of a leaf in the place of its Content-ID."""
    last = len(html) if ordinals else noise.last_place(html)
    if last < 0:
        return StrippedText(html)
    walk = _Walk(html, noise, work, ordinals)
    edits = walk.edits(last)
    return _without(html, edits, frozenset(walk.referred))


def strip_ignored_text(text: bytes, noise: Ignores, work: ScanBudget) -> StrippedText:
    """Leave noise out of a plain text."""
    if not noise.looks_at_text:
        return StrippedText(text)
    found = noise.in_text(text, work, html=False)
    return _without(text, [_Edit(start, end, b"\0", name) for start, end, name in found])


def refers_to_ids(html: bytes) -> bool:
    """Say whether a reference by Content-ID is left that was not understood."""
    return _CID.search(html) is not None


class _Walk:
    """One walk over one text."""

    def __init__(self, html: bytes, noise: Ignores, work: ScanBudget, ordinals: Mapping[bytes, int]) -> None:
        self._html = html
        self._lower = html.lower()
        self._noise = noise
        self._work = work
        self._ordinals = ordinals
        self._edits: list[_Edit] = []
        self.referred: set[int] = set()
        """The ordinals of leaves whose Content-IDs were found."""
        self._only_urls = not (ordinals or noise.looks_at_text or noise.looks_at_comments or noise.attributes)

    def edits(self, last: int) -> list[_Edit]:
        """Give what is to be left out, up to the last tag that begins at or before an offset."""
        at = place = 0
        while at >= 0:
            begin = at
            if self._only_urls:
                place = place if place > at else self._html.find(b"?", at)
                if not 0 <= place <= last or not self._work.spend():
                    break
                begin = self._clear(at, place)
            token = _TOKEN.search(self._lower, begin)
            if self._noise.looks_at_text:
                text = self._html[at : token.start() if token else len(self._html)]
                self._add(self._noise.in_text(text, self._work, html=True), at)
            if not token or token.start() > last:
                break
            at = self._after(token)
        return self._edits

    def _after(self, token: re.Match[bytes]) -> int:
        """Look at a token, and give where the next may begin; -1 where that is not certain."""
        kind, at = token.lastgroup, token.end()
        if kind == "tag":
            self._look_at_tag(token)
            return at
        if kind == "comment":
            end = self._end_of_comment(at)
            if end > 0:
                self._add(self._noise.in_comment(self._html[at:end], self._work), at)
            return end
        if kind == "text":
            return self._end_of_text(token["text"], at)
        return at if kind == "declaration" else -1

    def _add(self, found: Iterable[IgnoredSpan], offset: int, mark: bytes = b"\0") -> None:
        for start, end, name in found:
            self._edits.append(_Edit(offset + start, offset + end, mark, name))

    def _clear(self, at: int, place: int) -> int:
        """Give the end of what can be passed over before a place."""
        found = _CLEAR.match(self._lower, at, place)
        return found.end() if found else at

    def _end_of_comment(self, start: int) -> int:
        """Find where the inside of a comment ends, or give -1, also where a browser may see the end elsewhere."""
        end = self._html.find(b"-->", start)
        return -1 if _ODD_BEGIN.match(self._html, start) or self._html.find(_ODD_END, start, end) >= 0 else end

    def _end_of_text(self, name: bytes, at: int) -> int:
        """Find the end tag of an element in which nothing else is a tag, or -1."""
        end = b"</" + name
        at = self._lower.find(end, at)
        while at >= 0 and self._lower[at + len(end) : at + len(end) + 1] not in _AFTER_NAME:
            at = self._lower.find(end, at + len(end))
        return at

    def _look_at_tag(self, token: re.Match[bytes]) -> None:
        tag = token[0]
        name = _NAME.match(tag, 1)
        if not name:
            return  # An end tag.
        url = self._urls_of(name[0]) if b"?" in tag else None
        if not (
            url
            or (self._ordinals and b"cid:" in tag)
            or (self._noise.attributes and any(attribute in tag for attribute in self._noise.attributes))
        ):
            return
        found = list(_ATTRIBUTE_IN_TAG.finditer(self._lower, token.start() + name.end(), token.end()))
        names = [attribute[1] for attribute in found]
        for attribute in found:
            # Of two, readers take either; where a value without quotes ends is a matter of taste.
            if attribute[2] and attribute[2][:1] in b"\"'" and names.count(attribute[1]) == 1:
                self._look_at_value(attribute, url)

    def _urls_of(self, name: bytes) -> tuple[bytes, UrlIgnores] | None:
        """Give the attribute of a tag that holds its URL, and what is to be found there."""
        if name in _IMAGES and self._noise.images:
            return b"src", self._noise.images
        if name in _LINKS and self._noise.links:
            return b"href", self._noise.links
        return None

    def _look_at_value(self, attribute: re.Match[bytes], url: tuple[bytes, UrlIgnores] | None) -> None:
        name = attribute[1]
        of_url = url is not None and name == url[0]
        if not (of_url or self._noise.attributes or self._ordinals):
            return
        start, end = attribute.start(2) + 1, attribute.end(2) - 1
        value = self._html[start:end]
        if name in _CID_ATTRIBUTES and value[:4].lower() == b"cid:" and value[4:] in self._ordinals:
            ordinal = self._ordinals[value[4:]]
            self._edits.append(_Edit(start, end, b"\0leaf %d" % ordinal))
            self.referred.add(ordinal)
            return
        if url and of_url:
            self._add(url[1].find(value, self._work, html=True), start)
        if self._noise.attributes:
            self._add(self._noise.in_attribute(name, value, self._work), start, _MARK_IN_ATTRIBUTE)


def _without(source: bytes, edits: list[_Edit], referred: frozenset[int] = frozenset()) -> StrippedText:
    if not edits:
        return StrippedText(source)  # Nor was a leaf referred to.
    pieces: list[bytes] = []
    ignored = []
    done = 0
    for start, end, mark, name in _apart(edits):
        pieces += (source[done:start], mark)
        done = end
        if name:
            ignored.append(Ignored(name, source[start:end]))
    pieces.append(source[done:])
    return StrippedText(b"".join(pieces), tuple(ignored), referred)


def _apart(edits: Iterable[_Edit]) -> list[_Edit]:
    """Put them in order, and make one of those that overlap."""
    apart: list[_Edit] = []
    for edit in sorted(edits):
        if apart and edit.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(edit.end, apart[-1].end))
        else:
            apart.append(edit)
    return apart
