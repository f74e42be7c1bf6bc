"""Sequences of mails, for consecutive rules: the command on all stores, and two processes beside a model."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from parts import store_backends

from relay.claims.manager import ClaimManager
from relay.claims.store_client import BatchingStoreClient
from relay.core.claim import Claim, ClaimTerms, Fingerprint, Follow, Free, Original, Peek, Sent, Token, Won
from relay.core.sequence import MOST_FINGERPRINTS, Arrival, SequenceName, SequenceState, place
from relay.judge.fingerprint.sequence import in_epoch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from parts.store_backends import Backend

    from relay.core.store import Store

EXAMPLES = {"memory": 100, "sqlite": 30, "redis": 25, "sentinel": 3, "cluster": 8}
SEQUENCE, OTHER = SequenceName("q4:" + "3f" * 20), SequenceName("q4:" + "a0" * 20)
KEEP_FOR = 105.0
LEASE, WINDOW = 1e6, 1e5


def mail(name: str) -> Fingerprint:
    return Fingerprint(f"v4:{name * 40}")


_epochs = itertools.count()


def follow(name: str, sequence: SequenceName = SEQUENCE) -> Follow:
    return Follow(sequence, mail(name), f"{next(_epochs):016x}", KEEP_FOR)


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = backend.store()
    await store.open()
    yield store
    await store.close()


async def answers(store: Store, *commands: Follow) -> list[SequenceState]:
    given = await store.execute(commands)
    assert all(isinstance(answer, SequenceState) for answer in given)
    return [answer for answer in given if isinstance(answer, SequenceState)]


async def test_each_other_mail_begins_an_epoch_and_a_repeat_begins_none(store: Store) -> None:
    commands = [follow(name) for name in "aabab"]
    states = await answers(store, *commands)
    begun = [commands[0], commands[0], commands[2], commands[3], commands[4]]
    assert [state.epoch for state in states] == [command.epoch for command in begun]
    assert [state.interrupted for state in states] == [False, False, False, True, True]
    assert states[-1].fingerprints == tuple(map(mail, "baba"))


async def test_a_second_identical_command_has_the_same_answer(store: Store) -> None:
    commands = [follow(name) for name in "aba"]
    for command in commands:
        first, second = await answers(store, command, command)
        assert first == second
    assert first.interrupted


async def test_sequences_do_not_touch_each_other_nor_claims(store: Store) -> None:
    here, there, _, again = await answers(store, follow("a"), follow("b", OTHER), follow("c", OTHER), follow("a"))
    assert here == again
    assert there.epoch != here.epoch
    assert [entry async for entry in store.sent()] == []
    assert await store.forget(lambda _: True) == 0
    assert await answers(store, follow("a")) == [here], "forgetting frees acceptances only"
    key = Fingerprint("v4:" + "3f" * 20)
    assert await store.execute([Peek(key, WINDOW), Claim(key, Token("t"), LEASE, WINDOW)]) == [Free(), Won()]


async def test_a_sequence_remembers_the_latest_mails(store: Store) -> None:
    names = "abcdefghijk"
    *_, last = await answers(store, *map(follow, names))
    assert last.fingerprints == tuple(map(mail, names[: -MOST_FINGERPRINTS - 1 : -1]))
    [back] = await answers(store, follow(names[1 - MOST_FINGERPRINTS]))
    assert back.interrupted
    [forgotten] = await answers(store, follow(names[0]))
    assert not forgotten.interrupted


async def test_a_sequence_ends_after_its_time(store: Store, backend: Backend) -> None:
    [first] = await answers(store, follow("a"))
    backend.advance(KEEP_FOR - 10)
    assert await answers(store, follow("a")) == [first]
    backend.advance(KEEP_FOR - 10)
    assert await answers(store, follow("a")) == [first], "every mail keeps it longer"
    backend.advance(KEEP_FOR + 10)
    [second] = await answers(store, follow("a"))
    assert second.epoch != first.epoch
    assert second.fingerprints == (mail("a"),)


class Sequences(RuleBasedStateMachine):
    """One store beside the pure function `place`."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        backend.clear()
        self.runner = asyncio.Runner()
        self.store = backend.store()
        self.runner.run(self.store.open())
        self.now = 0.0
        self.model: dict[SequenceName, tuple[SequenceState, float]] = {}

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    @rule(names=st.text("abc", min_size=1, max_size=12), sequence=st.sampled_from([SEQUENCE, OTHER]))
    def follow(self, names: str, sequence: SequenceName) -> None:
        commands = [follow(name, sequence) for name in names]
        before, until = self.model.get(sequence, (None, 0.0))
        state = before if self.now < until else None
        expected = [state := place(state, command.fingerprint, command.epoch) for command in commands]
        assert self.runner.run(answers(self.store, *commands)) == expected
        self.model[sequence] = expected[-1], self.now + KEEP_FOR

    @rule(seconds=st.sampled_from([10.0, 50.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.backend.advance(seconds)
        self.now += seconds


class Mails(RuleBasedStateMachine):
    """Two processes on one store that judge, deliver and settle at the same time, under a consecutive rule.

    A copy is suppressed only if no other mail was accepted since the acceptance of the mail that it repeats. If no
    mail is in flight, every immediate repeat is suppressed.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        backend.clear()
        self.runner = asyncio.Runner()
        self.clients = [BatchingStoreClient(backend.store(), limit=20) for _ in range(2)]
        self.managers = [ClaimManager(client, lease=LEASE, clock=lambda: 0.0) for client in self.clients]
        for client in self.clients:
            self.runner.run(client.start())
        self.count = 0
        self.in_flight: list[tuple[ClaimManager, Token, str, Fingerprint]] = []
        self.accepted: list[tuple[str, str]] = []
        """The id and the content of each accepted mail."""
        self.alone = Token("")
        """The mail that is in flight, if no other one was in flight or arrived since it arrived."""
        self.latest = ""
        """The content of the latest mail, if it was alone in flight and nothing arrived since."""

    def teardown(self) -> None:
        for manager, client in zip(self.managers, self.clients, strict=True):
            self.runner.run(manager.close())
            self.runner.run(client.close())
        self.runner.close()

    def arrival(self, name: str) -> Arrival:
        return Arrival(SEQUENCE, b"sender@example.test", mail(name), KEEP_FOR, takes_part=True)

    @rule(number=st.integers(0, 1), name=st.sampled_from("abc"))
    def mail_arrives(self, number: int, name: str) -> None:
        self.count += 1
        manager, token = self.managers[number], Token(f"t{self.count}")
        states = self.runner.run(manager.follow([self.arrival(name)]))
        key = in_epoch(mail(name), states[SEQUENCE].epoch)
        [verdict] = self.runner.run(manager.claim({key: ClaimTerms(WINDOW)}, token)).values()
        match verdict:
            case Won():
                assert name != self.latest, "an immediate repeat"
                self.alone = Token("") if self.in_flight else token
                self.latest = ""
                self.in_flight.append((manager, token, name, key))
            case Sent(original):
                since = [content for message, content in self.accepted[self.position(original.id) :]]
                assert set(since) == {name}, "another mail was accepted since"

    def position(self, message: str) -> int:
        return [accepted for accepted, _ in self.accepted].index(message)

    @precondition(lambda self: self.in_flight)
    @rule(number=st.integers(0, 9), accepts=st.booleans())
    def upstream_answers(self, number: int, accepts: bool) -> None:
        manager, token, name, key = self.in_flight.pop(number % len(self.in_flight))
        accepted = {}
        if accepts:
            self.runner.run(manager.follow([self.arrival(name)]))
            accepted = {key: Original(token, "", "", 1.5)}
            self.accepted.append((token, name))
        self.runner.run(manager.settle(token, accepted, [] if accepts else [key], {key: ClaimTerms(WINDOW)}))
        self.latest = name if accepts and token == self.alone else ""


@pytest.mark.parametrize("machine", [Sequences, Mails])
@pytest.mark.parametrize("name", store_backends.NAMES)
def test_sequences_follow_the_model_on_every_store(name: str, machine: type[Sequences | Mails], tmp_path: Path) -> None:
    store_backends.run_machine(machine, name, tmp_path, EXAMPLES[name])
