"""Which paths name the same recipient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.envelope import fold


@pytest.mark.parametrize(
    "spellings",
    [
        [
            b"anna@example.test",
            b"ANNA@Example.TEST",
            b'"anna"@example.test',
            b'"an\\na"@example.test',
            b"anna@example.test.",
        ],
        [
            "anna@bücher.example".encode(),
            b"anna@xn--bcher-kva.example",
            b"anna@XN--BCHER-KVA.example",
            "anna@BÜCHER.example".encode(),
        ],
        ["jürgen@example.test".encode(), "JÜRGEN@example.test".encode()],
        [b'"a b"@example.test', b'"A b"@EXAMPLE.test'],
        [b"a.b@example.test", b'"a.b"@example.test', b'"a\\.b"@example.test'],
        [b"postmaster", b"Postmaster"],
    ],
)
def test_spellings_of_one_mailbox_fold_to_one_recipient(spellings: list[bytes]) -> None:
    assert len({fold(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"anna@example.test", b"bert@example.test"),
        (b"anna@example.test", b"anna@example.org"),
        (b"anna@example.test", b"anna+news@example.test"),
        (b"anna.b@example.test", b"annab@example.test"),
        (b'"a b"@example.test', b"ab@example.test"),
        (b'"a..b"@example.test', b'"a.b"@example.test'),
        (b'".a"@example.test', b"a@example.test"),
        (b'"a@b"@example.test', b"b@example.test"),
        (b'"a,b"@example.test', b"a,b@example.test"),
        ("bücher@example.test".encode(), b"bucher@example.test"),
        (b"j\xfcrgen@example.test", b"j\xf6rgen@example.test"),
        ("\N{KELVIN SIGN}im@example.test".encode(), b"kim@example.test"),
        ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}nge@example.test".encode(), "i\u0307nge@example.test".encode()),
        (b"anna", b"anna@example.test"),
        (b"anna@[192.0.2.1]", b"anna@[192.0.2.2]"),
    ],
)
def test_different_mailboxes_stay_different(one: bytes, other: bytes) -> None:
    assert fold(one) != fold(other)


@given(st.binary(max_size=80))
def test_any_octets_can_be_folded_and_folding_is_idempotent(path: bytes) -> None:
    once = fold(path)
    assert fold(once.encode("utf-8", "surrogateescape")) == once


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_folds_to_text_that_keeps_its_domain_apart(local: str, domain: str) -> None:
    folded = fold(f"{local}@{domain}".encode())
    assert folded.count("@") >= 1
    assert folded == fold(f"{local}@{domain}.".encode()) or domain.endswith(".") or not domain
