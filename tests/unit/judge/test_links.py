"""Links are found wherever a rule may look for them, in time that is linear in the text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.judge.rules.links import find_links

U = b"https://t.example.org/recoverPass?user=anna&recoverpass=f00d"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (U, U),
        (b'<a href="' + U + b'">x</a>', U),
        (b"<A HREF = '" + U + b"'>", U),
        (b"<a href=" + U + b">", U),
        (b'<a href="' + U.replace(b"&", b"&amp;") + b'">', U),
        (b"text " + U.replace(b"&", b"&amp;") + b" text", U),
        (
            b'<a href="/recoverPass?user=anna smith&amp;recoverpass=f00d">',
            b"/recoverPass?user=anna smith&recoverpass=f00d",
        ),
        (b'<a href="&#104;ttps:&#x2F;/t.example.org">', b"https://t.example.org"),
        (b"see https&#58;//t.example.org/x now", b"https://t.example.org/x"),
        (b"see https:&sol;&sol;t.example.org/x now", b"https://t.example.org/x"),
        (b"(app+x.1://open/this)", b"app+x.1://open/this)"),
        (b"<a href='https://t.example.org/ no end", b"https://t.example.org/ no end"),
        (b'<a href="https://\xff.example.org/\xfe">', b"https://\xff.example.org/\xfe"),
        (b"<a href='/recover\r\n\tPass'>", b"/recoverPass"),
        (b"<a href='/recover&Tab;Pa&#10;ss'>", b"/recoverPass"),
        (b'<form><a title="href" href="/x">', b"/x"),
        (b"<a href='/a&#" + b"0" * 9_000 + b"66;'>", b"/aB"),
        (b"<a href='/a&#" + b"9" * 9_000 + b";b'>", "/a\ufffdb".encode()),
    ],
)
def test_a_link_is_found_with_its_references_resolved(text: bytes, found: bytes) -> None:
    assert found in find_links(text)


def test_each_link_is_returned_once_and_nothing_else_is() -> None:
    assert find_links(b'<a href="' + U.replace(b"&", b"&amp;") + b'">' + U + b"</a> a / b : c // d :// e") == [U]
    assert find_links(b"") == []


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"href=", b"://", b"&#", b"&amp;", b"'", b" ", b"a"])).map(b"".join)
)
def test_a_link_is_found_once_after_any_octets(text: bytes) -> None:
    found = find_links(text + b" " + U)
    assert U in found
    assert len(found) == len(set(found))
    assert not any(white in link for link in found for white in (b"\t", b"\r", b"\n"))


@pytest.mark.parametrize(
    "unit",
    [
        *(b"href=", b'href="', b"href='", b"href=a ", b'href="&#1;"', b"href  =", b"href=& ", b"://", b"a://b "),
        *(b"a.+-a.+-!a://b ", b"a://&lt; ", b"&#1;", b"&am", b" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"&#0", b"&#99999"),
    ],
)
def test_twice_the_text_takes_twice_the_time(unit: bytes) -> None:
    """64 KiB take some milliseconds. In quadratic time a megabyte would take seconds."""
    start = time.process_time()
    find_links(unit * ((1 << 20) // len(unit)))
    assert time.process_time() - start < 3
