"""Finds one-time codes, and links that carry a token to sign in, to verify an address or to recover an account.

Judges by form: a short text with a code that stands by itself, or a link with a random value. A word for "code" decides
about a code inside a sentence, about doubtful forms, and in long and bulk mail. All steps take linear time, and texts
above 64 KiB are not searched.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

import re2

from relay.judge.rules.links import find_links, resolve_references

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST_SOURCE = 1 << 16
"""Octets of all texts with their tags. Mails with a code have 1 to 40 KB of HTML."""
LONGEST_TEXT = 2000
"""Characters that a reader sees in one text. A mail with a code has 50 to 1,500 of them, with its legal notes."""
MOST_CODES = 3
"""Different codes. A message with more is a table of numbers."""
MOST_LINKS = 12
"""Different links. A message with more is a newsletter."""

# Tried on every message, so it must be fast and may find too much: four digits that are no year, or groups of digits,
# at the start of a word; a line or an element of capitals and digits; a word of both.
_CODE_HINT = re2.compile(
    rb"(?m)(?:^|[\s>(\[*:;]|[^\x00-\x7F])(?:[A-Z]{1,3}-)?(?:[03-9][0-9]{3}|1[0-8][0-9]{2}|2[1-9][0-9]{2}"
    rb"|(?:19|20)[0-9]{3}"
    rb"|[0-9]{2,5}(?:[ -][0-9]{2}|[.&]|[^\x00-\x7F])|[0-9][ -][0-9][ -][0-9]"
    rb"|[0-9A-Z]{0,8}(?:[A-Z][0-9]|[0-9][A-Z])[0-9A-Z]{2})"
    rb"|[=:][0-9]{4}|>[0-9]{2,4}<|[0-9A-Z]{3,4}-[0-9A-Z]{3}"
    # Digits of other scripts: Arabic, Persian, fullwidth, and those of India and South-East Asia.
    rb"|[\x{660}-\x{669}\x{6F0}-\x{6F9}\x{966}-\x{96F}\x{9E6}-\x{9EF}\x{A66}-\x{DEF}\x{E50}-\x{E59}\x{FF10}-\x{FF19}]"
    rb"|(?:^|>)\s*(?:[0-9A-Z][0-9A-Z-]{3,12}|[0-9]|[0-9A-Za-z]{0,9}[0-9][0-9A-Za-z]{0,9})\s*(?:<|$)"
)
_UNSEEN = ((b"<!--", b"-->"), (b"<style", b"</style"), (b"<script", b"</script"), (b"<title", b"</title"))
_LINK_TAG = re.compile(rb"</?a(?:\s[^<>]*)?>", re.IGNORECASE)
_TAG = re.compile(rb"<[^<>]*>")
# Around the text of a link, which is the number of an invoice or a ticket rather than a code.
_LINK_MARK = b"\0"
# The digits of all scripts as ASCII, and blanks and hyphens as the plain ones.
_PLAIN = {code: str(int(chr(code))) for code in range(0x660, 0x10000) if chr(code).isdecimal()} | str.maketrans(
    dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\xad", None)
    | dict.fromkeys("\t\xa0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " ")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\xb7\u2022\u30fb", "-")
)
_MARKS = " .,:;!?*_|()[]{}<>\"'`“”‘’«»„「」『』【】：，。！–—-"  # noqa: RUF001 - marks around a code

_GROUPS = re.compile(r"[0-9A-Za-z]{1,10}(?:[ -][0-9A-Za-z]{1,10}){0,9}")
_BETWEEN_GROUPS = re.compile("[ -]")
_YEAR_OR_DATE = re.compile(r"(?:19|20)[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}")
# Not a code but a word or name with a number, or a number with a unit: SPRING24, marta77, 1080p.
_WORD_WITH_NUMBER = re.compile("[A-Z]{4,}[0-9]+|[A-Za-z]?[a-z]+[0-9]+|[0-9]+[a-z]+")
_CONSONANTS = re.compile("[B-DF-HJ-NP-TV-Z]{3}")
_VOWEL = re.compile("[AEIOU]")
# What surrounds an amount, a time, an address, a ticket's number or a longer number does not surround a code.
_IN_SENTENCE = re.compile(
    r"(?<![\0\w#/.,@+&%$€£¥-])(?<![^A-Za-z\u0080-\uffff][:=])"
    r"([A-Z]{1,3}-[0-9]{4,8}|[0-9]{2}(?:[ -][0-9]{2}){2,4}|[0-9]{3,4}[ -][0-9]{3,4}|[0-9](?: [0-9]){3,9}"
    r"|[A-Z0-9]{3,4}-[A-Z0-9]{3,4}|[0-9]{4,10}|[A-Z0-9]{5,10})"
    r"(?![\0\w/@%$€£¥-]|[.,:][0-9])",
    re.ASCII,
)
# "Code" and the like in many languages. They are parts of longer words: Sicherheitscode.
_WORDS = re.compile(
    r"c[oó]d[eio]|\bc[oó]d\b|k[oó]+[dð]|κωδικ|код|კოდ|կոդ|குறியீ|కోడ్|ಕೋಡ್|കോഡ്|ओटीपी|ওটিপি"
    r"|番[号號]|暗証|パスワード|密[码碼]|번호|קוד|رمز|كود|کد|कोड|কোড|รหัส|\bmã\b|コード|代[码碼]"
    r"|[验驗][证證]|認[証證]|校[验驗]|인증|코드"
    r"|\botp\b|\bpin\b|\btan\b|token|passwor"
    r"|uthibitisho|pengesahan|تایید|تحقق|log-?in\b|sign-?in\b|verif|passcode|parol|парол|şifre"
    r"|senha|contrase|mot de passe|heslo|jelsz",
    re.IGNORECASE,
)
_LONGEST_CODE_LINE = 30
"""Characters, with marks around the code."""
_LONGEST_GROUP = 4
"""Digits that stand in an element of their own."""
_NEAR = 60
"""Characters between such a word and its code."""

_NAMES = (
    "[a-z_-]*(?:token|code|key|hash|secret|ticket|confirm|confirmation|verify|verification|activation|signature)|nonce"
    "|otp|otc|sig|recover[a-z]*|reset[a-z_]*|invit[a-z_]*|magic[a-z_]*|login|auth|jwt|sesame|pwd|hmac"
)
_NAMED = re.compile(rf"(?:^|[?&;#])(?:{_NAMES})=([^&;#\s]+)", re.IGNORECASE)
_NAMED_LENGTH = 6
"""Characters of a value with a digit, behind a parameter that is named for a token."""
_RANDOM_LENGTH = 16
_RANDOM_PIECE = re.compile(rf"[0-9A-Za-z]{{{_RANDOM_LENGTH},}}")
_CHANGE = re.compile("(?<=[0-9])[A-Za-z]|(?<=[a-z])[0-9A-Z]|(?<=[A-Z])[0-9]")
_CHANGES = 4
"""How often a random value changes between digits, capitals and small letters. 16 hexadecimal digits do it 7 times."""
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Fast, and may find too much: such a name, or two changes between letters and digits in one word of a URL.
_TOKEN_HINT = re2.compile(
    rb"(?i)(?:token|code|key|hash|secret|ticket|confirm|confirmation|verify|verification|activation|signature|nonce|otp"
    rb"|otc|sig|recover[a-z]*|reset[a-z_]*|invit[a-z_]*|magic[a-z_]*|login|auth|jwt|sesame|pwd|hmac)=[^&;#\s]{6}"
    rb"|[0-9a-f]{8}-[0-9a-f]{4}-|[/=.~_-](?:[0-9]+[a-z]+[0-9]+[a-z]|[a-z]+[0-9]+[a-z]+[0-9])"
)
# Links that any mail of a bulk sender or of a version control system carries, and files.
_OTHER_LINK = re.compile(
    r"unsub|opt-?out|abmeld|d[ée]sinscri|preferenc|/commits?/|/blob/|/tree/|/track|/click|/open/|pixel|webview"
    r"|view-?in-?browser|/email/view/|^[^?#]*\.(?:png|jpe?g|gif|webp|svg|css|js|ico|pdf|mp4|m3u8|ics)(?:$|[?#])",
    re.IGNORECASE,
)
_CAMPAIGN = re.compile("[?&;]utm_", re.IGNORECASE)


def find_codes(subjects: Sequence[bytes], texts: Sequence[bytes]) -> list[bytes]:
    """Returns the one-time codes of a short message, without repetitions. `subjects` are its decoded Subject fields.

    Returns nothing if there are more than `MOST_CODES`. Example: `[b"482913"]` for `<p>Your code:</p><b>482 913</b>`.
    """
    candidates = [text for text in texts if _CODE_HINT.search(text)]
    if not (candidates or any(map(_CODE_HINT.search, subjects))) or sum(map(len, texts)) > LONGEST_SOURCE:
        return []
    found: list[str] = []
    for text in candidates:
        lines = visible_lines(text)
        if sum(map(len, lines)) > LONGEST_TEXT:
            return find_named_codes(subjects, texts)
        found += _codes_alone(lines)
        found += (code for line in lines for code in _codes_in_sentence(line))
    found += _codes_in_subjects(subjects)
    return _unless_many(found)


def find_named_codes(subjects: Sequence[bytes], texts: Sequence[bytes]) -> list[bytes]:
    """Returns the codes of digits that a word for "code" is near: in the line, in the line before, or in the Subject.

    These are certain enough for a long message and for bulk mail. Services that send codes through senders of bulk
    mail have their List-Unsubscribe and a long footer.
    """
    if sum(map(len, texts)) > LONGEST_SOURCE:
        return []
    found = list(_codes_in_subjects(subjects))
    about_code = any(_WORDS.search(_decode(subject[:LONGEST_TEXT])) for subject in subjects)
    for text in texts:
        before = ""
        for line in visible_lines(text):
            found += _codes_in_sentence(line)
            code = _code(line.strip(_MARKS), has_word=True) if len(line) <= _LONGEST_CODE_LINE else None
            if code and (about_code or _WORDS.search(before[-_NEAR:])):
                found.append(code)
            before = line
    return _unless_many([code for code in found if code.isdigit()])


def _codes_in_subjects(subjects: Sequence[bytes]) -> Iterator[str]:
    for subject in subjects:
        yield from _codes_in_sentence(_decode(subject[:LONGEST_TEXT]).translate(_PLAIN))


def _unless_many(found: Sequence[str]) -> list[bytes]:
    codes = dict.fromkeys(found)
    return [code.encode() for code in codes] if len(codes) <= MOST_CODES else []


def find_token_links(texts: Sequence[bytes]) -> list[bytes]:
    """Returns the links of a short message that carry a token, without repetitions."""
    if not any(map(_TOKEN_HINT.search, texts)) or sum(map(len, texts)) > LONGEST_SOURCE:
        return []
    links = list(dict.fromkeys(link for text in texts for link in find_links(text)))
    if len(links) > MOST_LINKS:
        return []
    found = [link for link in links if has_token(_decode(link))]
    if found and any(sum(map(len, visible_lines(text))) > LONGEST_TEXT for text in texts):
        return []
    return found


def has_token(link: str) -> bool:
    """Returns whether a link carries a token: a random value, or a parameter that is named for a token."""
    if _OTHER_LINK.search(link):
        return False
    _, _, path = link.partition("://")[2].partition("/")
    shortest = _RANDOM_LENGTH if _CAMPAIGN.search(path) else _NAMED_LENGTH
    named = any(
        len(value) >= _RANDOM_LENGTH or (len(value) >= shortest and any(map(str.isdigit, value)))
        for value in _NAMED.findall(path)
    )
    if named or _CAMPAIGN.search(path):
        return named
    return bool(_UUID.search(path)) or any(map(_is_random, _RANDOM_PIECE.findall(path)))


def _is_random(piece: str) -> bool:
    return len(_CHANGE.findall(piece)) >= _CHANGES


def visible_lines(text: bytes) -> list[str]:
    """Returns what a reader sees of a plain or HTML text, without white space around it and without empty lines.

    A tag ends a line, so that a code in an element has a line to itself. NUL is where a link begins or ends.
    """
    for start, end in _UNSEEN:
        text = _without(text, start, end)
    text = _TAG.sub(b"\n", _LINK_TAG.sub(_LINK_MARK, text))
    if b"&" in text:
        text = resolve_references(text)
    return [stripped for line in _decode(text).translate(_PLAIN).splitlines() if (stripped := line.strip())]


def _without(text: bytes, start: bytes, end: bytes) -> bytes:
    """Returns the text with an empty tag in place of each element from `start` to `end`, or to the end of the text."""
    lower = text.lower()
    at = lower.find(start)
    if at < 0:
        return text
    kept, last = [], 0
    while at >= 0:
        kept.append(text[last:at])
        closing = lower.find(end, at)
        if closing < 0:
            return b"<".join([*kept, b">"])
        last = closing + len(end.rstrip(b">"))
        at = lower.find(start, last)
    return b"<".join([*kept, text[last:]])


def _decode(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _codes_alone(lines: Sequence[str]) -> Iterator[str]:
    """Yields the lines that are a code, and the codes that have a line for each character."""
    has_word = any(map(_WORDS.search, lines))
    for length, group in groupby(lines, len):
        # With a word for "code" also groups: <td>482</td><td>913</td>.
        pieces = list(group) if length == 1 or (has_word and length <= _LONGEST_GROUP) else []
        joined = "".join(pieces) if len(pieces) > 1 and (length == 1 or all(map(str.isdigit, pieces))) else ""
        if code := _code(joined, has_word=False):
            yield code
    marks = _MARKS + _LINK_MARK.decode() if has_word else _MARKS
    for line in lines:
        if code := _code(line.strip(marks), has_word=has_word):
            yield code


def _code(text: str, *, has_word: bool) -> str | None:
    """Returns the code that a text is, without the blanks and hyphens between its groups, or None."""
    # Of random codes of four digits two in a hundred look like a year.
    if not _GROUPS.fullmatch(text) or (_YEAR_OR_DATE.fullmatch(text) and not (has_word and text.isdigit())):
        return None
    groups = _BETWEEN_GROUPS.split(text)
    code = "".join(groups)
    if not 4 <= len(code) <= 10:  # noqa: PLR2004 - the lengths of codes
        return None
    if code.isdigit():
        return code
    regular = len(groups) > 1 and len({len(group) for group in groups}) == 1 and " " not in text
    if code.isalpha():
        is_code = code.isupper() and _looks_random(code, regular=regular, has_word=has_word)
    else:
        is_code = regular or (" " not in text and _is_mixed(code))
    return code if is_code else None


def _looks_random(capitals: str, *, regular: bool, has_word: bool) -> bool:
    """Returns whether capitals are no word. Generators avoid vowels for that purpose (RFC 8628 section 6.1)."""
    if not _VOWEL.search(capitals) and (regular or len(capitals) > 5):  # noqa: PLR2004 - HTML, HTTPS
        return True
    return has_word and bool(_CONSONANTS.search(capitals))


def _is_mixed(code: str) -> bool:
    """Returns whether letters and digits are mixed as in a code, not as in a name or in a number with a unit."""
    shortest = 4 if code.isupper() else 6
    return len(code) >= shortest and not _WORD_WITH_NUMBER.fullmatch(code)


def _codes_in_sentence(line: str) -> Iterator[str]:
    """Yields the codes that are near a word for "code" in a line."""
    for match in _IN_SENTENCE.finditer(line):
        code = _BETWEEN_GROUPS.sub("", match[1])
        is_random = _looks_random(code, regular=True, has_word=True) if code.isalpha() else _is_mixed(code)
        if _YEAR_OR_DATE.fullmatch(match[1]) or not (code.isdigit() or is_random) or match[1].isalpha():
            continue
        if _WORDS.search(line, max(0, match.start() - _NEAR), match.end() + _NEAR):
            yield code
