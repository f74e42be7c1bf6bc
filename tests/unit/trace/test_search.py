"""What a text may mean in a search, and queries as JSON."""

import json
import math

import pytest

from relay.core.trace import TraceOutcome, TraceQuery
from relay.records.pseudonyms import Pseudonyms
from relay.trace.search import LONGEST, decode_query, encode_query, names_for

HASHES = Pseudonyms(b"x" * 32, plain=False)


@pytest.mark.parametrize("written", ["3F9C0A1B2C4D", "3f9c0a1b2c4d", " 3f9c0a1b2c4d "])
def test_id_is_found_in_any_case(written: str) -> None:
    assert "3f9c0a1b2c4d" in names_for(written, HASHES)


def test_queue_id_keeps_its_case() -> None:
    assert "4XYZ12abcd" in names_for("4XYZ12abcd", HASHES)


def test_message_id_is_found_with_and_without_brackets() -> None:
    assert "1b2c@tube.example.org" in names_for("<1b2c@tube.example.org>", HASHES)
    assert "1b2c@tube.example.org" in names_for("1b2c@tube.example.org", HASHES)


def test_address_is_found_as_pseudonym_and_as_itself() -> None:
    assert {"alice@example.org", HASHES("alice@example.org")} <= names_for("Alice@EXAMPLE.org", HASHES)
    assert "alice@example.org" in names_for("Alice@EXAMPLE.org", None)


@pytest.mark.parametrize("written", ["", "  ", "x" * (LONGEST + 1)])
def test_nothing_is_searched_for_an_empty_or_endless_text(written: str) -> None:
    assert not names_for(written, HASHES)


QUERIES = [
    TraceQuery(),
    TraceQuery(
        names=frozenset({"a", "ü"}),
        ids=frozenset({"b"}),
        outcomes=frozenset({TraceOutcome.REFUSED}),
        rule="r",
        since=1.5,
        until=2.0,
    ),
]


@pytest.mark.parametrize("query", QUERIES)
def test_query_survives_json(query: TraceQuery) -> None:
    assert decode_query(json.loads(json.dumps(encode_query(query)))) == query


@pytest.mark.parametrize(
    "fields",
    [[], {"names": "a"}, {"outcomes": ["lost"]}, {"since": "yesterday"}, {"since": math.nan}, {"until": True}],
)
def test_other_json_is_no_query(fields: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_query(fields)
