"""Generates pairs of messages: one message, and the same with one feature written in another way.

The ways are those in which parsers have been seen to differ: labels, quotes, controls, boundaries, charsets, encoded
words. Most pairs are equal to one reader and different to another. Their fingerprints may only be equal if no reader
differs.
"""

from __future__ import annotations

import base64
import copy
import random
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Description = dict[str, Any]
"""What a message says, and in which way each feature is written."""

CONTROLS = {
    "vt": b"\v",
    "ff": b"\f",
    "x1c": b"\x1c",
    "x1f": b"\x1f",
    "bs": b"\x08",
    "nul": b"\0",
    "x85": b"\x85",
    "nbsp": b"\xa0",
}
SUBJECTS = [
    "Hello",
    "Invoice 12",
    "Zahlung €5 für Zoë",
    "é",
    "a  b",
    "日本語",
    "x=y_z",
    "fi\u200bnd",
    "\uff21",
    "A\u030a",
    "50 % off",
]
SENDERS = ["Shop", "Zoë Ü", "A, B", "a@b", "x (y)"]
TEXTS = [
    "Your code is 123456.",
    "Pay €5 to Zoë",
    "line one\nline two\nline three",
    "a=b\n.dot\n-- \nsig",
    "tab\there\nnbsp\u00a0x",
    "日本語テキスト",
    "From me\n>From you",
    "--b\n\nEvil\n--b--",
    "Hello\n--B\n\nPay 900 to Mallory\n--B--",
    "trail  \nx",
    "+AOk- ~{VPND~} \\u0041",
    "é combining e\u0301",
    "soft\u00adhyphen zero\u200bwidth \u202ebidi",
    '<b>bold</b> <a href="http://x.example/?a=1&b=2">l</a>',
    "begin 644 a.txt\n#0V%T\n`\nend\n",
    "<p>one</p><!-- two --><p>three</p>",
]
KINDS = [
    *["text/plain"] * 6,
    *["text/html"] * 4,
    *["TEXT/Plain", "text/csv", "application/octet-stream", "message/rfc822", "text/calendar", "image/png"],
]
CHARSETS = [
    "us-ascii",
    "utf-8",
    "UTF-8",
    "utf8",
    "iso-8859-1",
    "windows-1252",
    "latin1",
    "iso-8859-15",
    "iso-2022-jp",
    "shift_jis",
    "gb18030",
    "gbk",
    "big5",
    "euc-kr",
    "euc-jp",
    "utf-16",
    "utf-7",
    "hz-gb-2312",
    "iso-2022-kr",
    "unknown-8bit",
    "koi8-r",
    "windows-1251",
    "cp1252",
    "ascii",
    "ansi_x3.4-1968",
]
CODECS = {
    "unknown-8bit": "latin-1",
    "hz-gb-2312": "hz",
    "ansi_x3.4-1968": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
}
WORD_CHARSETS = [
    "iso-8859-1",
    "windows-1252",
    "iso-8859-15",
    "iso-2022-jp",
    "shift_jis",
    "euc-jp",
    "gb2312",
    "gbk",
    "gb18030",
    "big5",
    "euc-kr",
    "koi8-r",
    "windows-1251",
]
CHARSET_LABELS = {
    "plain": b"; charset=%b",
    "quoted": b'; charset="%b"',
    "upper": b"; CHARSET=%b",
    "folded": b";\r\n charset=%b",
    "blanks": b" ; charset = %b ",
    "another": b"; charset=%b; x=y",
    "semicolon": b"; charset=%b;",
    "semicolons": b";; charset=%b",
    "comment": b"; charset=%b (c)",
    "single quotes": b"; charset='%b'",
    "extended": b"; charset*=us-ascii''%b",
    "continued": b"; charset*0=%b",
    "blank behind": b'; charset="%b "',
    "blank before": b'; charset=" %b"',
    "folded behind": b'; charset="%b\r\n "',
    "backslash behind": b'; charset="%b\\""',
    "backslash before": b'; charset="\\%b"',
    "tab": b"\t; charset=%b",
    "two": b"; charset=%b; charset=utf-7",
    **{name: b'; charset="%b' + control + b'"' for name, control in CONTROLS.items()},
}
ENCODINGS = {"": b"", "7bit": b"7bit", "8bit": b"8bit", "binary": b"binary", "upper": b"BINARY"} | {
    f"{name} {way}": form % name.encode()
    for name in ("quoted-printable", "base64")
    for way, form in {
        "": b"%b",
        "blanks": b"   %b  ",
        "blank behind": b"%b ",
        "tabs": b"\t%b\t",
        "tab before": b"\t%b",
        "folded": b"\r\n %b",
        "comment": b"%b (c)",
        "quoted": b'"%b"',
        "semicolon": b"%b;",
        **{f"{way} behind": b"%b" + control for way, control in CONTROLS.items()},
        **{f"{way} before": control + b"%b" for way, control in CONTROLS.items()},
    }.items()
}
BOUNDARIES = {
    boundary: b'"%b"' % boundary
    for boundary in (
        *(
            b"b",
            b"=_b",
            b" b",
            b"a b",
            b"x" * 70,
            b"x" * 71,
            b"b()",
            b"a:b",
            b"--b",
            b"b--",
            b"b%41",
            b"'b'",
            b"b;c",
            b"b!",
            b".",
        ),
        *(
            b"b,c",
            b"b?",
            b"b*",
            b"<b>",
            b"=?utf-8?Q?b?=",
            b"b\t",
            "é".encode(),
            b"B",
            b"b'",
            b"'b",
            b"b ",
            b"b/c+d_e",
            b"b\x7f",
        ),
        *(b"b%b" % control for control in CONTROLS.values()),
    )
} | {b"b.": b"b.", b"b_": b"b_", b"b{c}": b"b{c}"}
DELIMITERS = {"plain": (b"", b""), "blanks": (b"", b" \t "), "blank line": (b"\r\n", b"")}
PREAMBLES = [b"", b"This is multi-part\r\n", b"--b\r\n"]
EPILOGUES = [
    b"",
    b"\r\n",
    b"end\r\n",
    b"--b\r\n\r\nEvil\r\n",
    b"\r\n--b\r\n\r\nEvil\r\n--b--\r\n",
    b"\r\n--B\r\n\r\nEvil\r\n--B--\r\n",
]
QUOTED_PRINTABLE = [
    "plain",
    "lower",
    "soft",
    "soft-end",
    "soft-end-2",
    "soft-blanks",
    "crlf-coded",
    "lf-coded",
    "lf-soft",
    "all",
    "bare-lf",
    "blanks",
    "soft-lf",
    "dot",
]
BASE64 = [
    "plain",
    "one",
    "short",
    "lf",
    "blank-lines",
    "blanks",
    "no-padding",
    "hyphens",
    "padded-inside",
    "middle",
    "after",
    "bits",
    "cr",
    "more-padding",
]
DISPOSITIONS = [
    b"inline",
    b"attachment",
    *(
        b"attachment; " + names
        for names in (
            b"filename=a.txt",
            b'filename="a.txt"',
            b"filename*=utf-8''a.txt",
            b"filename*0=a.; filename*1=txt",
            b"filename*1=txt; filename*0=a.",
            b"filename*0*=utf-8''a%2E; filename*1=txt",
            b"filename*0*=utf-8''a%2E; filename*1*=%74xt",
            b"filename*1*=%74xt; filename*0*=utf-8''a%2E",
            b'filename*0="a."; filename*1*=%74xt',
            b'filename="=?utf-8?Q?a.txt?="',
            b"filename=b.txt; filename*=utf-8''a.txt",
            b'filename="a.txt "',
            b'filename="a  b.txt"',
            b'filename="a b.txt"',
            b'filename="a\tb.txt"',
            b'filename=" a.txt"',
            b'filename="a\\.txt"',
            b"FILENAME=a.txt",
            b'filename="../a.txt"',
            'filename="é.txt"'.encode(),
            'filename="e\u0301.txt"'.encode(),
            b"filename*=iso-8859-1''%E9.txt",
            b"filename*=utf-8'en'%C3%A9.txt",
            b"filename*=utf-8''%c3%a9.txt",
            b'filename=""',
            *(b'filename="a.txt%b"' % control for control in CONTROLS.values()),
        )
    ),
]
MIME_VERSIONS = [
    b"1.0",
    b"",
    b"1.0 (x)",
    b"\r\n 1.0",
    b"\f1.0",
    b"\v1.0",
    b"1.01",
    b"1.0x",
    b"1.0\r\nMIME-Version: 2.0",
    b"(x) 1.0",
]
PART_FIELDS = [
    *[b""] * 4,
    b"Content-ID: <a@b>\r\n",
    b"Content-Language: de\r\n",
    b"Content-Location: x.html\r\n",
    b"Content-Base: http://x/\r\n",
]


def word(text: str | bytes, charset: str, encoding: str, language: str = "") -> bytes:
    """Returns an encoded word (RFC 2047); `text` may be octets that are part of a character."""
    octets = text if isinstance(text, bytes) else text.encode(CODECS.get(charset, charset), "replace")
    if encoding in "bB":
        encoded = base64.b64encode(octets)
    else:
        encoded = b"".join(
            b"%c" % octet if chr(octet).isalnum() and octet < 128 else b"=%02X" % octet for octet in octets
        )
        encoded = encoded.replace(b"=20", b"_")
    return b"=?%b%b?%b?%b?=" % (charset.encode(), language.encode(), encoding.encode(), encoded)


@cache
def header_forms(text: str) -> dict[str, bytes]:
    """Returns the ways in which an unstructured text is written, and ways that only look like it."""
    octets, half, middle = text.encode(), len(text.encode()) // 2, len(text) // 2
    head, tail = text[:middle], text[middle:]
    quoted, encoded = word(text, "utf-8", "Q"), word(text, "utf-8", "B")
    forms = {
        "raw": octets,
        "raw in blanks": b"   " + octets + b"   ",
        "folded": octets.replace(b" ", b"\r\n "),
        "folded first": b"\r\n " + octets,
        "folded by tab": octets.replace(b" ", b"\r\n\t"),
        "two blanks": octets.replace(b" ", b"  "),
        "tab": octets.replace(b" ", b"\t"),
        "base64": encoded,
        "quoted": quoted,
        "lower": word(text, "UTF-8", "q"),
        "another name": word(text, "utf8", "B"),
        "language": word(text, "utf-8", "Q", "*en"),
        "split octets of base64": b"%b %b" % (word(octets[:half], "utf-8", "B"), word(octets[half:], "utf-8", "B")),
        "split octets of quoted": b"%b %b" % (word(octets[:half], "utf-8", "Q"), word(octets[half:], "utf-8", "Q")),
        "split octets of both": b"%b %b" % (word(octets[:half], "utf-8", "B"), word(octets[half:], "utf-8", "Q")),
        "split and two names": b"%b %b" % (word(octets[:half], "utf-8", "B"), word(octets[half:], "UTF-8", "B")),
        "adjacent": word(head, "utf-8", "B") + word(tail, "utf-8", "B"),
        "word and literal": word(head, "utf-8", "B") + b" " + tail.encode(),
        "literal and word": head.encode() + b" " + word(tail, "utf-8", "B"),
        "without padding": encoded.replace(b"=?=", b"?="),
        "lower digits": b"=?utf-8?Q?" + quoted[10:-2].lower() + b"?=",
        "raw in a word": b"=?utf-8?Q?" + octets.replace(b" ", b"_") + b"?=",
        "long": b"=?utf-8?Q?" + b"".join(b"=%02X" % octet for octet in octets) + b"=20" * 30 + b"?=",
        "empty word and literal": b"=?utf-8?Q??= " + octets,
        "empty word and word": b"=?utf-8?Q??= " + encoded,
        "in tabs": b"\t" + quoted + b"\t",
        **{f"coded {code:02X}": quoted.replace(b"_", b"=%02X" % code) for code in (9, 10, 11, 12, 13, 0, 0x7F)},
    }
    for name, between in ({"blank": b" ", "fold": b"\r\n ", "tab": b"\t", "blanks": b"  "} | CONTROLS).items():
        forms[f"words split by {name}"] = word(head, "utf-8", "B") + between + word(tail, "utf-8", "Q")
    for name, control in CONTROLS.items():
        forms[f"{name} for blank"] = octets.replace(b" ", control)
        forms[f"in {name}"] = control + octets + control
        forms[f"word behind {name}"] = control + encoded
    for charset in WORD_CHARSETS:
        try:
            text.encode(charset)
        except UnicodeEncodeError:
            continue
        forms[f"base64 {charset}"] = word(text, charset, "B")
        forms[f"quoted {charset}"] = word(text, charset, "Q")
        forms[f"split {charset}"] = word(head, charset, "B") + b" " + word(tail, charset, "B")
    return forms


@cache
def sender_forms(name: str) -> dict[str, bytes]:
    """Returns the ways in which From is written."""
    address, octets = b" <shop@example.com>", name.encode()
    return {form: value + address for form, value in header_forms(name).items()} | {
        "quoted string": b'"%b"%b' % (octets, address),
        "comment": b"shop@example.com (%b)" % octets,
        "word in a comment": b"shop@example.com (%b)" % word(name, "utf-8", "B"),
        "word in quotes": b'"%b"%b' % (word(name, "utf-8", "B"), address),
        "no blank": word(name, "utf-8", "B") + address.strip(),
        "blanks around the address": octets + b" < shop@example.com >",
        "group": octets + b":" + address + b";",
        "two": octets + address + b", Eve <eve@example.com>",
        "word as local part": word(name, "utf-8", "Q") + b" <=?utf-8?Q?shop?=@example.com>",
        "backslashes": b'"%b"%b' % (octets.replace(b" ", b"\\ "), address),
    }


def quoted_printable(octets: bytes, way: str) -> bytes:
    lines = []
    for line in octets.split(b"\r\n"):
        coded = b"".join(b"%c" % c if (33 <= c <= 126 and c != 61) or c in b" \t" else b"=%02X" % c for c in line)
        if coded[-1:] in (b" ", b"\t") and way != "blanks":
            coded = coded[:-1] + b"=%02X" % coded[-1]
        lines.append(coded)
    joined = b"\r\n".join(lines)
    return {
        "lower": b"\r\n".join(
            b"".join(b"%c" % c if 33 <= c <= 126 and c != 61 else b"=%02x" % c for c in line)
            for line in octets.split(b"\r\n")
        ),
        "soft": joined.replace(b" ", b" =\r\n"),
        "soft-end": joined + b"=\r\n",
        "soft-end-2": joined + b"=",
        "soft-blanks": joined.replace(b" ", b" = \r\n"),
        "crlf-coded": b"=0D=0A".join(lines),
        "lf-coded": b"=0A".join(lines),
        "lf-soft": b"=0A=\r\n".join(lines),
        "all": b"".join(b"=%02X" % c for c in octets),
        "bare-lf": b"\n".join(lines),
        "soft-lf": joined.replace(b" ", b" =\n"),
        "dot": joined.replace(b".", b"=2E"),
    }.get(way, joined)


def in_base64(octets: bytes, way: str) -> bytes:
    one, middle = base64.b64encode(octets), len(octets) // 6 * 3
    lines = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    bits = lines
    if b"==" in lines:
        last = lines.index(b"==") - 1
        bits = lines[:last] + bytes([lines[last] + 1]) + lines[last + 1 :]
    return {
        "one": one,
        "short": b"\r\n".join(one[at : at + 3] for at in range(0, len(one), 3)),
        "lf": lines.replace(b"\r\n", b"\n"),
        "blank-lines": b"\r\n" + lines + b"\r\n\r\n",
        "blanks": lines.replace(b"\r\n", b" \r\n"),
        "no-padding": lines.rstrip(b"\r\n="),
        "hyphens": lines + b"--\r\n",
        "padded-inside": base64.b64encode(octets[:4]) + b"\r\n" + base64.b64encode(octets[4:]),
        "middle": base64.b64encode(octets[:middle]) + b"\r\n" + base64.b64encode(octets[middle:]),
        "after": lines + b"\r\nQUJD\r\n",
        "bits": bits,
        "cr": lines.replace(b"\r\n", b"\r"),
        "more-padding": lines + b"=\r\n",
    }.get(way, lines)


def _describe(choose: random.Random) -> Description:
    subject, sender = choose.choice(SUBJECTS), choose.choice(SENDERS)
    return {
        "subject": subject,
        "subject form": "raw" if subject.isascii() else "base64",
        "from": sender,
        "from form": "raw" if sender.isascii() else "base64",
        "version": b"1.0",
        "structure": choose.choice(["single", "single", "alternative", "mixed", "nested", "digest"]),
        "boundary": b"b",
        "inner boundary": b"=_b",
        "delimiter": "plain",
        "preamble": choose.choice(PREAMBLES),
        "epilogue": choose.choice(EPILOGUES),
        "leaves": [
            {
                "text": choose.choice(TEXTS),
                "kind": choose.choice(KINDS).encode(),
                "charset": choose.choice([*["utf-8"] * 6, *CHARSETS, None]),
                "charset label": "plain",
                "encoding": choose.choice(["", "8bit", "quoted-printable ", "base64 "]),
                "quoted-printable": "plain",
                "base64": "plain",
                "disposition": choose.choice([*[b""] * 4, *DISPOSITIONS]),
                "fields": choose.choice(PART_FIELDS),
                "end": choose.choice([b"", b"\r\n"]),
            }
            for _ in range(3)
        ],
    }


def _change(description: Description, choose: random.Random) -> tuple[str, Description]:
    """Returns what was written in another way, and the changed description."""
    changed = copy.deepcopy(description)
    leaf = changed["leaves"][0 if changed["structure"] == "single" else choose.randrange(2)]
    whole = {
        "subject form": list(header_forms(changed["subject"])),
        "from form": list(sender_forms(changed["from"])),
        "version": MIME_VERSIONS,
        "boundary": list(BOUNDARIES),
        "inner boundary": list(BOUNDARIES),
        "delimiter": list(DELIMITERS),
    }
    ways = whole | {
        "charset": CHARSETS,
        "charset label": list(CHARSET_LABELS),
        "encoding": list(ENCODINGS),
        "quoted-printable": QUOTED_PRINTABLE,
        "base64": BASE64,
        "disposition": DISPOSITIONS,
        "kind": [b"", leaf["kind"].swapcase()],
        "end": [b"", b"\r\n", b"\r\n\r\n", b"  "],
    }
    feature = choose.choice([*ways, *["subject form", "from form", "encoding", "disposition", "boundary"] * 2])
    way = choose.choice(ways[feature])
    if feature in ("quoted-printable", "base64"):
        leaf["encoding"] = f"{feature} "
    (changed if feature in whole else leaf)[feature] = way
    return f"{feature}: {way!r}", changed


def _leaf(leaf: Description) -> tuple[bytes, bytes]:
    charset = leaf["charset"]
    octets = leaf["text"].replace("\n", "\r\n").encode(CODECS.get(charset, charset) or "utf-8", "replace")
    label = ENCODINGS[leaf["encoding"]]
    if b"quoted" in label:
        octets = quoted_printable(octets, leaf["quoted-printable"])
    elif b"base64" in label:
        octets = in_base64(octets, leaf["base64"])
    fields = b""
    if leaf["kind"]:
        parameter = CHARSET_LABELS[leaf["charset label"]] % charset.encode() if charset else b""
        fields += b"Content-Type: %b%b\r\n" % (leaf["kind"], parameter)
    if label:
        fields += b"Content-Transfer-Encoding: %b\r\n" % label
    if leaf["disposition"]:
        fields += b"Content-Disposition: %b\r\n" % leaf["disposition"]
    return fields + leaf["fields"], octets + leaf["end"]


def _write(description: Description) -> bytes:
    leaves = [_leaf(leaf) for leaf in description["leaves"]]

    def multipart(kind: bytes, boundary: bytes, parts: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        before, after = DELIMITERS[description["delimiter"]]
        body = description["preamble"]
        for fields, part in parts:
            body += b"--%b%b\r\n%b\r\n%b%b\r\n" % (boundary, after, fields, part, before)
        body += b"--%b--%b\r\n%b" % (boundary, after, description["epilogue"])
        return b"Content-Type: multipart/%b; boundary=%b\r\n" % (kind, BOUNDARIES[boundary]), body

    structure = description["structure"]
    if structure == "single":
        fields, body = leaves[0]
    elif structure == "nested":
        inner = multipart(b"alternative", description["inner boundary"], leaves[:2])
        fields, body = multipart(b"mixed", description["boundary"], [inner, leaves[2]])
    else:
        fields, body = multipart(structure.encode(), description["boundary"], leaves[:2])
    return b"From: %b\r\nTo: v@example.org\r\nSubject: %b\r\n%b%b\r\n%b\r\n" % (
        sender_forms(description["from"])[description["from form"]],
        header_forms(description["subject"])[description["subject form"]],
        b"MIME-Version: %b\r\n" % description["version"] if description["version"] else b"",
        fields,
        body,
    )


def pairs(seed: int, count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """Yields pairs of different messages, with the feature that differs."""
    choose = random.Random(seed)
    found = 0
    while found < count:
        description = _describe(choose)
        feature, changed = _change(description, choose)
        first, second = _write(description), _write(changed)
        if first != second:
            found += 1
            yield feature, first, second
