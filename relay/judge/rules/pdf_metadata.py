"""Finds the dates in a PDF's Info dictionary and the ID in its trailer (ISO 32000-1 sections 7.5.5 and 14.3.3).

Only in the simple form that most generators of invoices write: one trailer, and an Info dictionary that is an object of
the file and holds nothing but names with strings. In any other file nothing is found: one with object streams, with
later changes, encrypted (its ID is part of the key), or with a cross-reference table that names another place.
"""

from __future__ import annotations

import re

_SPACE = rb"[\x00\t\n\f\r ]"
_LITERAL = rb"\((?>(?:[^()\\]+|\\.)*)\)"
_HEX = rb"<[0-9A-Fa-f\t\n\r ]*>"
_PLAIN = rb"[^\x00/()<>\[\]{}%]+"
_VALUE = rb"%b|%b|\[%b*%b%b*%b%b*\]|%b" % (
    _LITERAL,
    _HEX,
    _SPACE,
    _HEX,
    _SPACE,
    _HEX,
    _SPACE,
    _PLAIN,
)
_ENTRY = re.compile(rb"(?>%b*)/((?>[A-Za-z0-9._:-]+))(?>%b*)(%b)%b*" % (_SPACE, _SPACE, _VALUE, _SPACE), re.DOTALL)
_DATE = re.compile(rb"\(D:[0-9]{4,14}(?:[-+Z][0-9']{0,6})?\)")
_ID = re.compile(rb"\[.*\]", re.DOTALL)
_REFERENCE = re.compile(rb"([1-9][0-9]{0,6}) ([0-9]{1,5}) R%b*" % _SPACE)
_TRAILER = re.compile(rb"\btrailer%b*<<" % _SPACE)
_XREF = re.compile(rb"\bxref%b*\n0 [1-9][0-9]{0,6} *\r?\n" % rb"[\r ]")
_XREF_LINE = 20
"""Octets."""
_DATES = frozenset((b"CreationDate", b"ModDate"))


def find_metadata(pdf: bytes) -> list[tuple[int, int]]:
    """Returns start and end of the values, or nothing if the file has another form."""
    trailers = list(_TRAILER.finditer(pdf))
    if not pdf.startswith(b"%PDF-1.") or len(trailers) != 1 or pdf.count(b"trailer") != 1 or b"/Encrypt" in pdf:
        return []
    trailer = _read_entries(pdf, trailers[0].end())
    reference = _REFERENCE.fullmatch(pdf[slice(*trailer.get(b"Info", (0, 0)))])
    found = [trailer[b"ID"]] if b"ID" in trailer and _ID.fullmatch(pdf, *trailer[b"ID"]) else []
    if reference:
        found += _find_dates(pdf, *reference.groups())
    return found


def _find_dates(pdf: bytes, number: bytes, generation: bytes) -> list[tuple[int, int]]:
    objects = list(re.finditer(rb"(?<![0-9])%b %b obj%b*<<" % (number, generation, _SPACE), pdf))
    if len(objects) != 1 or not _is_in_table(pdf, int(number), objects[0].start()):
        return []
    entries = _read_entries(pdf, objects[0].end())
    return [span for key, span in entries.items() if key in _DATES and _DATE.fullmatch(pdf, *span)]


def _is_in_table(pdf: bytes, number: int, offset: int) -> bool:
    """Returns whether the cross-reference table, if there is one, says that the object is at this offset."""
    if b"startxref" not in pdf:
        # Readers then search for the objects. The one that was found must not be in a stream.
        return pdf.count(b"endstream", 0, offset) * 2 == pdf.count(b"stream", 0, offset)
    tables = list(_XREF.finditer(pdf))
    if len(tables) != 1:
        return False
    line = tables[0].end() + number * _XREF_LINE
    return pdf[line : line + 10] == b"%010d" % offset


def _read_entries(pdf: bytes, at: int) -> dict[bytes, tuple[int, int]]:
    """Returns the spans of a dictionary's values by key, or nothing if it holds anything but simple values."""
    entries: dict[bytes, tuple[int, int]] = {}
    while not pdf.startswith(b">>", at):
        entry = _ENTRY.match(pdf, at)
        if not entry or entry[1] in entries:
            return {}
        entries[entry[1]] = entry.span(2)
        at = entry.end()
    return entries
