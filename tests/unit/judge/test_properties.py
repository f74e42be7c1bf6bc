"""Properties of the fingerprint: what counts, what does not, and that nothing but message and settings decides.

`HYPOTHESIS_PROFILE=long` runs many more examples.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parts.corpus import BOB, MESSAGES, digests, judge_file
from parts.judging import avideo_judge
from parts.mailers import File, Mail, Mailer, write, write_by_email

from relay.core.envelope import fold
from relay.judge.judge import Judge
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
from relay.judge.text.decode import fold_text

if TYPE_CHECKING:
    from relay.judge.rules.ignore import Ignore

settings.register_profile("short", max_examples=100, deadline=None)
settings.register_profile("long", max_examples=5_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

JUDGE = avideo_judge()
# Latin-1 letters, so that each charset below can encode them. A leading hyphen would look like a boundary.
LATIN = st.text(st.sampled_from("abcdefghijkl0123456789 äöüéñß.,!?"), max_size=40)
SHOWN = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=20
)
LINES = st.lists(LATIN, max_size=5).map("\n".join)
FILES = st.lists(
    st.builds(File, st.sampled_from(["a.pdf", "b.pdf", "march.pdf"]), st.binary(max_size=80)), max_size=2
).map(tuple)
MAILS = st.builds(
    Mail,
    subject=LATIN.map(lambda text: f"S{text}"),
    name=st.text("abcäöü", min_size=1, max_size=8),
    plain=LINES,
    html=LINES.map(lambda text: f"<p>{text}</p>"),
    files=FILES,
)
DATE = "Date: Tue, 1 Jul 2025 10:59:04 +0000"
OTHERS = ["Message-ID: <2@b>", "To: y", "X-Mailer: z", "Received: by q", "DKIM-Signature: b=1", "User-Agent: c"]
MAILERS = st.builds(
    Mailer,
    encoding=st.sampled_from(["8bit", "quoted-printable", "base64"]),
    charset=st.sampled_from(["utf-8", "iso-8859-1", "windows-1252", "UTF-8"]),
    words=st.sampled_from(["Q", "B", "split"]),
    boundary=st.text("abcXYZ0123456789'+_=", min_size=1, max_size=60),
    newline=st.sampled_from(["\r\n", "\n"]),
    others=st.permutations(OTHERS).flatmap(lambda all_: st.integers(0, len(all_)).map(lambda n: (*all_[:n], DATE))),
    fold_parameters=st.booleans(),
    width=st.sampled_from([4, 60, 76, 10_000]),
)


def fingerprint(content: bytes, judge: Judge = JUDGE) -> str:
    return judge(content, b"contact@example.org").fingerprint(BOB)


def seen(mail: Mail) -> tuple[object, ...]:
    """Returns what a reader can tell apart: white space is folded, letters are composed."""
    texts = (mail.subject, mail.name, mail.plain, mail.html)
    return tuple(re.sub("[ \n]+", " ", unicodedata.normalize("NFC", text)).strip(" ") for text in texts), mail.files


# What does not count.


@given(MAILS, MAILERS, MAILERS)
def test_encoding_charset_and_layout_do_not_count(mail: Mail, first: Mailer, second: Mailer) -> None:
    assert fingerprint(write(mail, first)) == fingerprint(write(mail, second))


@given(MAILS)
def test_raw_octets_in_a_header_count(mail: Mail) -> None:
    same = fingerprint(write(mail, Mailer(words="raw"))) == fingerprint(write(mail, Mailer(words="Q")))
    assert same == (mail.subject + mail.name).isascii()


@given(MAILS, st.sampled_from(["8bit", "quoted-printable", "base64"]), MAILERS)
def test_the_library_that_wrote_the_message_does_not_count(mail: Mail, encoding: str, mailer: Mailer) -> None:
    assert fingerprint(write_by_email(mail, encoding)) == fingerprint(write(mail, mailer))


@given(SHOWN, SHOWN)
def test_decomposed_letters_do_not_count(subject: str, plain: str) -> None:
    mail = Mail(subject=subject, plain=plain)
    composed, decomposed = (
        replace(mail, **{part: unicodedata.normalize(form, getattr(mail, part)) for part in ("subject", "plain")})
        for form in ("NFC", "NFD")
    )
    mailer = Mailer(words="B")
    assert fingerprint(write(composed, mailer)) == fingerprint(write(decomposed, mailer))


@given(st.text(st.characters(codec="utf-8"), max_size=100))
def test_folding_is_idempotent(text: str) -> None:
    folded = fold_text(text)
    assert folded is None or fold_text(folded.decode()) == folded


@given(st.sampled_from(["bob", "Bob.B", "BOB+news"]), st.sampled_from(["example.org", "Example.ORG", "bücher.example"]))
def test_the_spelling_of_a_recipient_does_not_count(local: str, domain: str) -> None:
    analysis = JUDGE(write(Mail()), b"")
    spellings = [f"{local}@{domain}", f"{local.upper()}@{domain.upper()}", f'"{local}"@{domain}', f"{local}@{domain}."]
    assert len({analysis.fingerprint(fold(spelling.encode())) for spelling in spellings}) == 1


@given(st.lists(st.sampled_from(["a", "b", "a+b", "a.b", "ab"]), min_size=2, max_size=2, unique=True))
def test_different_mailboxes_have_different_fingerprints(locals_: list[str]) -> None:
    analysis = JUDGE(write(Mail()), b"")
    first, second = (analysis.fingerprint(fold(f"{local}@example.org".encode())) for local in locals_)
    assert first != second


# What counts.


@given(MAILS, MAILS, MAILERS, MAILERS)
def test_two_letters_are_equal_only_if_a_reader_sees_no_difference(
    one: Mail, other: Mail, first: Mailer, second: Mailer
) -> None:
    same = fingerprint(write(one, first)) == fingerprint(write(other, second))
    assert same == (seen(one) == seen(other))


VISIBLE = st.sampled_from("0123456789abcXYZäß€😀\u200b\u202e\u00a0\u0301")


@given(MAILS, st.sampled_from(["subject", "name", "plain", "html"]), st.integers(0), VISIBLE)
@example(Mail(), "plain", 0, "\u200b")
def test_one_more_character_counts(mail: Mail, part: str, at: int, character: str) -> None:
    text = getattr(mail, part)
    # In HTML the place is in the text, since a tag is not displayed. A combining mark joins the letter before it.
    place = at % (len(text) + 1) if part != "html" else 3
    other = replace(mail, **{part: text[:place] + character + text[place:]})
    mailer = Mailer(words="B")
    assert seen(mail) != seen(other)
    assert fingerprint(write(mail, mailer)) != fingerprint(write(other, mailer))


@given(st.lists(st.builds(File, st.sampled_from("ab"), st.binary(max_size=3)), max_size=3), st.permutations(range(3)))
def test_files_count_by_name_octets_order_and_number(files: list[File], order: list[int]) -> None:
    others = [files[place] for place in order if place < len(files)]
    first, second = (Mail(files=tuple(some)) for some in (files, others))
    assert (fingerprint(write(first)) == fingerprint(write(second))) == (files == others)
    if files:
        assert fingerprint(write(first)) != fingerprint(write(Mail(files=tuple(files[:-1]))))


@given(st.text("ab", min_size=3, max_size=6), st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_moving_text_between_fields_changes_the_fingerprint(text: str, cuts: list[int]) -> None:
    """Cuts one text into subject, name, plain text, HTML and files in two places."""

    def cut(at: int) -> list[Mail]:
        head, tail = text[:at], text[at:]
        return [
            Mail(subject=f"s{head}", name=f"{tail}n"),
            Mail(name=f"n{head}", plain=f"{tail}t"),
            Mail(plain=f"t{head}", html=f"{tail}h"),
            Mail(html=f"h{head}", files=(File(f"{tail}f", b""),)),
            Mail(files=(File(f"f{head}", tail.encode()),)),
            Mail(files=(File("f", head.encode()), File("g", tail.encode()))),
        ]

    for first, second in zip(*map(cut, cuts), strict=True):
        assert (fingerprint(write(first)) == fingerprint(write(second))) == (seen(first) == seen(second))


HEAD = "Subject: x\r\nFrom: a@example.org\r\nMIME-Version: 1.0\r\n"
TWO_PARTS = f"{HEAD}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{{}}\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Subject: x\r\nFrom: a\r\n\r\n", "Subject: xFroma\r\nFrom:\r\n\r\n"),
        ("From: a\r\nReply-To: b\r\n\r\n", "From: aReply-Tob\r\n\r\n"),
        ("Reply-To: b\r\nList-Id: c\r\n\r\n", "Reply-To: bList-Idc\r\n\r\n"),
        ("Subject: a\r\nSubject: b\r\n\r\n", "Subject: aSubjectb\r\n\r\n"),
        ("Subject: 1:a7:Subject1:b\r\n\r\n", "Subject: a\r\nSubject: b\r\n\r\n"),
        (TWO_PARTS.format("a\r\n--b\r\n\r\nb"), TWO_PARTS.format("aparttext/plaintextb")),
        (TWO_PARTS.format("a\r\n--b\r\n\r\nb"), TWO_PARTS.format("apart text/plain text b")),
        (TWO_PARTS.format("a").replace("--b--\r\n", "--b--\r\nc"), TWO_PARTS.format("aepiloguec")),
    ],
)
def test_a_value_cannot_imitate_the_next_field(one: str, other: str) -> None:
    """The values contain what precedes the next field in the hashed form."""
    assert fingerprint(one.encode()) != fingerprint(other.encode())


# Ignores leave out what they name, and nothing else.

TOKENS = st.text("0123456789abcdef", min_size=1, max_size=12)
PAGE = (
    '<p style="{style}">Hi {text}</p><!-- {comment} -->'
    '<a href="https://example.org/a?k={key}&amp;utm_source={campaign}&amp;z=1">x</a>'
    "<img src='https://example.org/{path}.jpg?{query}'>"
)
FREE: dict[str, Ignore] = {
    "campaign": Parameter("campaign", "utm_source", UrlKind.LINK),
    "style": Attribute("style", "style", Pattern(".+")),
    "comment": Comment("build", Pattern("")),
    "text": Text("time", Pattern("at [0-9a-f]+")),
    "query": Query("number", Pattern("[0-9a-f]+"), UrlKind.IMAGE, Pattern(r"\.jpg$")),
}
WORDS = ["style", "text", "comment", "key", "campaign", "path", "query"]


def page(**words: str) -> bytes:
    words["text"] = f"at {words['text']}"
    return write(Mail(html=PAGE.format(**words)), Mailer())


@given(
    st.fixed_dictionaries(dict.fromkeys(WORDS, TOKENS)),
    st.fixed_dictionaries(dict.fromkeys(WORDS, TOKENS)),
    st.sets(st.sampled_from(sorted(FREE))),
    st.sampled_from(WORDS),
)
def test_ignores_leave_out_what_they_name_and_nothing_else(
    one: dict[str, str], other: dict[str, str], names: set[str], changed: str
) -> None:
    judge = Judge(ignore=[FREE[name] for name in sorted(names)], window=600.0)
    first = fingerprint(page(**one), judge)
    assert (fingerprint(page(**one | {changed: other[changed]}), judge) == first) == (
        changed in names or one[changed] == other[changed]
    )
    assert (fingerprint(page(**other), judge) == first) == all(
        one[word] == other[word] for word in WORDS if word not in names
    )


@given(st.fixed_dictionaries(dict.fromkeys(WORDS, TOKENS)), st.sampled_from(sorted(FREE)))
def test_the_normal_form_lists_what_was_ignored(words: dict[str, str], name: str) -> None:
    analysis = Judge(ignore=[FREE[name]], window=600.0)(page(**words), b"")
    assert {piece.name for piece in analysis.normal_form(analysis.rule(BOB)).ignored} == {FREE[name].name}


@given(st.sampled_from(["recoverPass?user=b&recoverpass=", "x?cache=", "a.php?utm_source=", "?"]), TOKENS, TOKENS)
def test_tokens_in_links_count_under_the_default_rules(link: str, one: str, other: str) -> None:
    first, second = (
        Mail(html=f"<a href='https://example.org/{link}{token}'>x</a>", plain="same") for token in (one, other)
    )
    assert (fingerprint(write(first)) == fingerprint(write(second))) == (one == other)


# Nothing but the message and the settings decides.

BYTES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda path, at, octets: (
            (content := path.read_bytes())[: at % len(content or b"x")] + octets + content[at % len(content or b"x") :]
        ),
        st.sampled_from(MESSAGES),
        st.integers(0, 10_000),
        st.binary(max_size=8),
    ),
)
ANY_IGNORES = Judge(
    ignore=[
        *FREE.values(),
        Parameter("all", "cache"),
        Text("letters", Pattern("[a-z]+|.")),
        Attribute("href", "href", Pattern("")),
        Comment("all comments", Pattern("(?s).*")),
        Header("subject", "subject"),
        Calendar("stamp", "DTSTAMP"),
        Pdf("metadata"),
        PartParameter("names", "filename"),
        ContentIds("vml"),
    ],
    window=600.0,
)


@given(BYTES, st.binary(max_size=20), st.binary(max_size=20))
@settings(max_examples=300 if settings().max_examples < 100 else settings().max_examples)
def test_any_bytes_give_a_fingerprint_and_always_the_same(content: bytes, reverse_path: bytes, path: bytes) -> None:
    recipient = fold(path)
    for judge in (JUDGE, ANY_IGNORES):
        first, second = (judge(content, reverse_path) for _ in range(2))
        assert first.fingerprint(recipient) == first.fingerprint(recipient) == second.fingerprint(recipient)
        assert first.ruling(recipient) == second.ruling(recipient)
        assert first.fingerprint(recipient).isascii()


@given(BYTES)
def test_the_last_byte_counts(content: bytes) -> None:
    judge = Judge(window=600.0)
    assert fingerprint(content, judge) != fingerprint(content + b"y", judge)


@given(st.lists(st.sampled_from(MESSAGES), max_size=3))
def test_earlier_messages_do_not_change_a_fingerprint(before: list[object]) -> None:
    judge = avideo_judge()
    for path in before:
        fingerprint(path.read_bytes(), judge)  # type: ignore[attr-defined]
    content = MESSAGES[0].read_bytes()
    assert fingerprint(content, judge) == judge_file(MESSAGES[0]).fingerprint(BOB)


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_another_process_computes_the_same_fingerprints(seed: str) -> None:
    """Under another hash seed, locale and time zone."""
    run = subprocess.run(
        [sys.executable, "-c", "from parts import corpus; import json; print(json.dumps(corpus.digests()))"],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "LC_ALL": "C", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == digests()
