r"""Strips from HTML and plain text what an operator's ignores find, and from HTML generated Content-IDs.

Only where it is certain how a browser reads the source: attributes of strictly written tags, comments, and the text
between them. Scripts, style sheets and the like stay unchanged. From the first tag that could be read in two ways,
nothing more is stripped. Outside of values white space is single spaces, unless a browser may show it as it is.

NUL, which no folded text holds, replaces what is stripped: `<img src='a.jpg?cache=17'>` becomes
`<img src='a.jpg?cache=\0'>`.
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

# Nothing in these patterns backtracks (`*+`), so that a hostile page costs no time. Groups are `(?>...)`: `(...)*+` is
# wrong before Python 3.11.5 (gh-106052), where it matches too little, and too much.
_VALUE = rb"\"[^\"]*+\"|'[^']*+'|[^\s\"'=<>`]++"
_ATTRIBUTE = rb"\s++([^\s\"'<>/=]++)(?>(?:\s*+=\s*+(%b))?)" % _VALUE
_ATTRIBUTES = rb"(?>(?:\s++[^\s\"'<>/=]++(?>(?:\s*+=\s*+(?:%b))?)){0,100})\s*+/?>" % _VALUE
# HTML Living Standard, section 13.2.5 (tokenization). The first elements switch to rules that depend on the reader or
# on their content, the second hold only text. The patterns search source in lower case.
_UNCLEAR_ELEMENTS = rb"script|noscript|svg|math|plaintext|template|frameset|select"
_TEXT_ELEMENTS = rb"style|title|textarea|xmp|iframe|noembed|noframes"
_TOKEN = re.compile(
    rb"<(?:(?P<comment>!--)"
    rb"|(?P<unclear_element>(?:%b)\b)"
    rb"|(?P<text>%b)%b"
    rb"|(?P<tag>/?[a-z][a-z0-9:-]*%b)"
    rb"|(?P<declaration>[!?][^>]*>)"
    rb"|(?P<unclear>[a-z/!?]))" % (_UNCLEAR_ELEMENTS, _TEXT_ELEMENTS, _ATTRIBUTES, _ATTRIBUTES)
)
# Text, tags, declarations and whole style sheets, as many as there are before an offset: most of a message in one step.
_SKIPPABLE = re.compile(
    rb"(?>(?:[^<]*+<(?:(?!(?:%b|%b)\b)/?[a-z][a-z0-9:-]*+%b"
    rb"|style%b[^<]*+(?>(?:<(?!/style[\s/>])[^<]*+)*)(?=</style)"
    rb"|(?:!(?!--)|\?)[^>]*+>)){0,200})" % (_UNCLEAR_ELEMENTS, _TEXT_ELEMENTS, _ATTRIBUTES, _ATTRIBUTES)
)
_ATTRIBUTE_IN_TAG = re.compile(_ATTRIBUTE)
_NAME = re.compile(rb"[a-z][a-z0-9:-]*")
# Where a browser ends a comment before `-->`: the parse errors "abrupt-closing-of-empty-comment" and
# "incorrectly-closed-comment" of the same section.
_ABRUPT_END = re.compile(rb"-?>")
_INCORRECT_END = b"--!>"
_AFTER_NAME = frozenset((b" ", b"/", b">", b"\t", b"\n", b"\r", b"\f"))
_IMAGES = frozenset((b"img",))
_LINKS = frozenset((b"a", b"area"))
_CID_ATTRIBUTES = frozenset((b"src", b"background"))
# Outlook's VML, which it alone reads: `<!--[if gte vml 1]> ... <v:imagedata src="cid:image001.png@01DB" ...`.
_CID_IN_COMMENT = re.compile(rb" src ?= ?([\"'])cid:([^\s\"'<>&]++)\1", re.IGNORECASE)
_STRIPPED = b"\0"
# Differs from the replacement of a Content-ID, whatever follows.
_STRIPPED_FROM_ATTRIBUTE = b"\0\0"
# `cid:` in any other place or spelling, which makes Content-IDs count. Readers skip line ends and tabs in a URL, and
# some backslashes in CSS. HTML and CSS can write any letter as a number.
_CID = re.compile(
    rb"c[\s\\]*+i[\s\\]*+d[\s\\]*+:"
    rb"|&#(?:0*(?:67|99|73|105|68|100|58|9|10|13)(?![0-9])|x0*(?:43|63|49|69|44|64|3a|9|a|d)(?![0-9a-f]))"
    rb"|&(?:colon|tab|newline)|\\[xu]?0*(?:43|63|49|69|44|64|3a)",
    re.IGNORECASE,
)


class StrippedText(NamedTuple):
    """A text, what was stripped from it in order, and the ordinals of the leaves to which its Content-IDs referred."""

    text: bytes
    ignored: tuple[Ignored, ...] = ()
    referred: frozenset[int] = frozenset()


class _Replacement(NamedTuple):
    """A span to replace, by offsets, and the name of the ignore that found it; empty for a Content-ID."""

    start: int
    end: int
    by: bytes
    name: str = ""


def strip_ignored_html(
    html: bytes, ignores: Ignores, budget: ScanBudget, ordinals: Mapping[bytes, int] = NO_ORDINALS
) -> StrippedText:
    """Strips what the ignores find in folded HTML, and replaces each Content-ID by the ordinal of its leaf."""
    last = len(html) if ordinals else ignores.last_place(html)
    if last < 0:
        return StrippedText(html)
    scanner = _HtmlScanner(html, ignores, budget, ordinals)
    scanner.scan(last)
    return _replace(html, scanner.replacements, frozenset(scanner.referred))


def strip_ignored_text(text: bytes, ignores: Ignores, budget: ScanBudget, kind: str = "text/plain") -> StrippedText:
    """Strips what the ignores find in a text of another media type than HTML."""
    found = list(ignores.in_octets(kind, text, budget))
    if ignores.looks_at_text:
        found += ignores.in_text(text, budget, html=False)
    return strip_spans(text, found) if found else StrippedText(text)


def strip_spans(source: bytes, found: Iterable[IgnoredSpan]) -> StrippedText:
    """Strips what the ignores have found in a text or in the octets of a leaf."""
    return _replace(source, [_Replacement(start, end, _STRIPPED, name) for start, end, name in found])


def refers_to_ids(html: bytes) -> bool:
    """Returns whether the source may hold a reference by Content-ID that was not replaced."""
    return _CID.search(html) is not None


class _HtmlScanner:
    """A scan of one text from tag to tag."""

    def __init__(self, html: bytes, ignores: Ignores, budget: ScanBudget, ordinals: Mapping[bytes, int]) -> None:
        self._html = html
        self._lower = html.lower()
        self._ignores = ignores
        self._budget = budget
        self._ordinals = ordinals
        self.replacements: list[_Replacement] = []
        self.referred: set[int] = set()
        """The ordinals of leaves whose Content-IDs were replaced."""
        self._looked_at = {*ignores.attributes, *_CID_ATTRIBUTES} if ordinals else ignores.attributes
        """The attributes to look at in any tag."""
        self._only_urls = not (ordinals or ignores.looks_at_text or ignores.looks_at_comments or ignores.attributes)

    def scan(self, last: int) -> None:
        """Collects replacements up to the last tag that begins at or before an offset."""
        at = query = 0
        while at >= 0:
            begin = at
            # Skips to the next URL with a query. Without this, a 9 KB notification takes 5 to 10 % longer.
            if self._only_urls:
                query = query if query > at else self._html.find(b"?", at)
                if not 0 <= query <= last or not self._budget.spend():
                    return
                skipped = _SKIPPABLE.match(self._lower, at, query)
                begin = skipped.end() if skipped else at
            token = _TOKEN.search(self._lower, begin)
            if self._ignores.looks_at_text:
                text = self._html[at : token.start() if token else len(self._html)]
                self._add(self._ignores.in_text(text, self._budget, html=True), at)
            if not token or token.start() > last:
                return
            at = self._scan_token(token)

    def _scan_token(self, token: re.Match[bytes]) -> int:
        """Returns the offset from which the next token may begin, or -1 if that is not certain."""
        kind, end = token.lastgroup, token.end()
        if kind == "tag":
            self._scan_tag(token)
            return end
        if kind == "comment":
            return self._scan_comment(end)
        if kind == "text":
            return self._end_of_element(token["text"], end)
        return end if kind == "declaration" else -1

    def _add(self, found: Iterable[IgnoredSpan], offset: int, by: bytes = _STRIPPED) -> None:
        for start, end, name in found:
            self.replacements.append(_Replacement(offset + start, offset + end, by, name))

    def _scan_comment(self, start: int) -> int:
        """Returns the end of the content of a comment, or -1, also if a browser may end it elsewhere."""
        end = self._html.find(b"-->", start)
        if end < 0 or _ABRUPT_END.match(self._html, start) or self._html.find(_INCORRECT_END, start, end) >= 0:
            return -1
        inside = self._html[start:end]
        self._add(self._ignores.in_comment(inside, self._budget), start)
        if self._ignores.content_ids and inside.startswith(b"[if "):
            for found in _CID_IN_COMMENT.finditer(inside):
                if found[2] in self._ordinals:
                    self._replace_id(
                        start + found.start(2) - len(b"cid:"), start + found.end(2), self._ignores.content_ids
                    )
        return end

    def _end_of_element(self, name: bytes, at: int) -> int:
        """Returns the offset of the end tag of an element that holds only text, or -1."""
        end_tag = b"</" + name
        at = self._lower.find(end_tag, at)
        while at >= 0 and self._lower[at + len(end_tag) : at + len(end_tag) + 1] not in _AFTER_NAME:
            at = self._lower.find(end_tag, at + len(end_tag))
        return at

    def _scan_tag(self, token: re.Match[bytes]) -> None:
        tag = token[0]
        name = _NAME.match(tag, 1)
        if not name:
            return  # An end tag.
        url = self._url_ignores(name[0]) if b"?" in tag else None
        if not (
            url
            or (self._ordinals and b"cid:" in tag)
            or (self._ignores.attributes and any(attribute in tag for attribute in self._ignores.attributes))
        ):
            return
        found = list(_ATTRIBUTE_IN_TAG.finditer(self._lower, token.start() + name.end(), token.end()))
        names = [attribute[1] for attribute in found]
        for attribute, each in zip(found, names, strict=True):
            if not ((url and each == url[0]) or each in self._looked_at):
                continue
            # Of two attributes of one name readers use either, and they differ about the end of a value without quotes.
            if attribute[2] and attribute[2][:1] in b"\"'" and names.count(each) == 1:
                self._scan_value(attribute, url)

    def _url_ignores(self, tag_name: bytes) -> tuple[bytes, UrlIgnores] | None:
        """Returns the attribute of a tag that holds its URL, and the ignores for that URL."""
        if tag_name in _IMAGES and self._ignores.images:
            return b"src", self._ignores.images
        if tag_name in _LINKS and self._ignores.links:
            return b"href", self._ignores.links
        return None

    def _replace_id(self, start: int, end: int, name: str = "") -> None:
        """Replaces `cid:` and an id by the ordinal of its leaf. `name` is that of the ignore that asks for it."""
        ordinal = self._ordinals[self._html[start + len(b"cid:") : end]]
        self.replacements.append(_Replacement(start, end, b"\0leaf %d" % ordinal, name))
        self.referred.add(ordinal)

    def _scan_value(self, attribute: re.Match[bytes], url: tuple[bytes, UrlIgnores] | None) -> None:
        name = attribute[1]
        start, end = attribute.start(2) + 1, attribute.end(2) - 1
        value = self._html[start:end]
        if name in _CID_ATTRIBUTES and value[:4].lower() == b"cid:" and value[4:] in self._ordinals:
            self._replace_id(start, end)
            return
        if url and name == url[0]:
            self._add(url[1].find(value, self._budget, html=True), start)
        if name in self._ignores.attributes:
            self._add(self._ignores.in_attribute(name, value, self._budget), start, _STRIPPED_FROM_ATTRIBUTE)


def _replace(source: bytes, replacements: list[_Replacement], referred: frozenset[int] = frozenset()) -> StrippedText:
    if not replacements:
        return StrippedText(source)
    pieces: list[bytes] = []
    ignored = []
    done = 0
    for start, end, by, name in _merge_overlaps(replacements):
        pieces += (source[done:start], by)
        done = end
        if name:
            ignored.append(Ignored(name, source[start:end]))
    pieces.append(source[done:])
    return StrippedText(b"".join(pieces), tuple(ignored), referred)


def _merge_overlaps(replacements: Iterable[_Replacement]) -> list[_Replacement]:
    """Returns the replacements in order, those that overlap as one."""
    merged: list[_Replacement] = []
    for each in sorted(replacements):
        if merged and each.start < merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(each.end, merged[-1].end))
        else:
            merged.append(each)
    return merged
