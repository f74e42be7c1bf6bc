"""The life cycle of claims, step by step in any order, on all stores beside a simple model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from parts import store_places

from relay.core.claim import (
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Free,
    Generation,
    Held,
    Note,
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Token,
    Won,
)

if TYPE_CHECKING:
    from pathlib import Path

    from parts.store_places import Place

    from relay.core.claim import Answer, Command

EXAMPLES = {"memory": 100, "sqlite": 40, "redis": 30, "sentinel": 5, "cluster": 15}
NEARLY = 4.0

keys = st.sampled_from([Fingerprint("v1:a"), Fingerprint("v1:b")])
tokens = st.sampled_from([Token("t1"), Token("t2"), Token("t3")])
recipients = st.sampled_from(["", "one", "other"])
originals = st.builds(Original, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.just(1.5))
# Time passes in tens and everything ends at a five: Redis's own clock goes on, and no step may fall on an edge.
tens = st.integers(1, 12).map(lambda number: number * 10.0)
ends = tens.map(lambda seconds: seconds + 5.0)
confirmations = st.builds(Confirm, keys, originals, ends, st.sampled_from([0.0, 10.0, 50.0]), recipients, tokens)

KEEP_FOR = 75.0

_Entry: TypeAlias = tuple[Token | Original, float, float, str]
"""Who holds it, or what was sent; since when; until when; to whom."""


class LifeCycle(RuleBasedStateMachine):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        place.clear()
        self.runner = asyncio.Runner()
        self.store = place.store()
        self.runner.run(self.store.open())
        self.now = 0.0
        self.model: dict[Fingerprint, _Entry] = {}
        self.generation = ""
        self.records: dict[str, tuple[str, float]] = {}

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def ask(self, command: Command) -> Answer:
        (answer,) = self.runner.run(self.store.execute([command]))
        return answer

    def expected(self, key: Fingerprint, window: float = 1e9) -> Answer:
        owner, since, until, _ = self.model.get(key, (Token(""), 0.0, 0.0, ""))
        if until <= self.now:
            return Free()
        if isinstance(owner, str):
            return Held(until - self.now)
        return Sent(owner, self.now - since) if self.now - since < window else Free()

    def holds(self, key: Fingerprint, token: Token) -> bool:
        return isinstance(self.expected(key), Held) and self.model[key][0] == token

    def check(self, answer: Answer, expected: Answer) -> None:
        match expected:
            case Held(remaining):
                assert isinstance(answer, Held)
                assert answer.remaining == pytest.approx(remaining, abs=NEARLY)
            case Sent(original, age):
                assert isinstance(answer, Sent)
                assert answer.original == original
                assert answer.age == pytest.approx(age, abs=NEARLY)
            case _:
                assert answer == expected

    @rule(seconds=tens)
    def time_passes(self, seconds: float) -> None:
        self.place.advance(seconds)
        self.now += seconds

    @rule(key=keys, token=tokens, lease=ends, window=ends)
    def claim(self, key: Fingerprint, token: Token, lease: float, window: float) -> None:
        expected = self.expected(key, window)
        if expected == Free() or self.holds(key, token):
            self.model[key] = (token, self.now, self.now + lease, "")
            expected = Won()
        self.check(self.ask(Claim(key, token, lease, window)), expected)

    @rule(key=keys, window=ends)
    def peek(self, key: Fingerprint, window: float) -> None:
        self.check(self.ask(Peek(key, window)), self.expected(key, window))

    @rule(confirm=confirmations)
    def confirm(self, confirm: Confirm) -> None:
        key, since = confirm.key, self.now - confirm.age
        match self.expected(key):
            case Held():
                taken = not self.holds(key, confirm.token)
            case Sent(before):
                taken = before.id != confirm.original.id
            case _:
                taken = False
        open_still = confirm.age < confirm.window
        if open_still:
            self.model[key] = (confirm.original, since, since + confirm.window, confirm.recipient)
        self.check(self.ask(confirm), Done(taken and open_still))

    @rule(key=keys, token=tokens, lease=ends)
    def renew(self, key: Fingerprint, token: Token, lease: float) -> None:
        expected = self.expected(key)
        if self.holds(key, token):
            self.model[key] = (token, self.now, self.now + lease, "")
            expected = Done()
        self.check(self.ask(Renew(key, token, lease)), expected)

    @rule(key=keys, token=tokens)
    def release(self, key: Fingerprint, token: Token) -> None:
        if self.holds(key, token):
            del self.model[key]
        self.check(self.ask(Release(key, token)), Done())

    @rule(to=recipients)
    def forget(self, to: str) -> None:
        sent = {key: expected for key in self.model if isinstance(expected := self.expected(key), Sent)}
        matching = [key for key in sent if self.model[key][3] == to]
        seen: dict[Fingerprint, Entry] = {}

        def matches(entry: Entry) -> bool:
            seen[entry.key] = entry
            return entry.recipient == to

        assert self.runner.run(self.store.forget(matches)) == len(matching)
        assert seen.keys() == sent.keys()
        for key, entry in seen.items():
            assert (entry.original, entry.recipient) == (sent[key].original, self.model[key][3])
            assert entry.age == pytest.approx(sent[key].age, abs=NEARLY)
        for key in matching:
            del self.model[key]
        told = self.ask(AskGeneration())
        assert isinstance(told, Generation)
        assert told.name not in ("", self.generation)
        self.generation = told.name

    @rule()
    def ask_generation(self) -> None:
        assert self.ask(AskGeneration()) == Generation(self.generation)

    @rule(record=st.sampled_from(["r1", "r2", "r3"]), text=st.sampled_from(["{}", '{"id":""}']))
    def note(self, record: str, text: str) -> None:
        self.records.pop(record, None)
        self.records[record] = (text, self.now)
        assert self.ask(Note(record, text, KEEP_FOR)) == Done()

    @rule(age=ends)
    def look_back(self, age: float) -> None:
        async def told() -> list[str]:
            return [text async for text in self.store.records(age)]

        oldest = self.now - min(age, KEEP_FOR)
        expected = [text for text, at in reversed(self.records.values()) if at >= oldest]
        assert self.runner.run(told()) == expected


@pytest.mark.parametrize("name", store_places.NAMES)
def test_every_store_follows_the_model(name: str, tmp_path: Path) -> None:
    with store_places.place(name, tmp_path) as place:
        run_state_machine_as_test(
            lambda: LifeCycle(place),
            settings=settings(
                max_examples=EXAMPLES[name],
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
