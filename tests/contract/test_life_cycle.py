"""All stores follow the table of the life cycle: each row, and commands in any order beside a model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from parts import store_backends

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
    Original,
    Peek,
    Release,
    Renew,
    Sent,
    Token,
)
from relay.core.life_cycle import TABLE, Condition, Event, State, find_row

if TYPE_CHECKING:
    from pathlib import Path

    from parts.store_backends import Backend

    from relay.core.claim import Answer, Command, KeyCommand
    from relay.core.life_cycle import Row, Trigger
    from relay.core.store import Store

EXAMPLES = {"memory": 100, "sqlite": 40, "redis": 30, "sentinel": 5, "cluster": 15}
NEARLY = 4.0

keys = st.sampled_from([Fingerprint("v1:a"), Fingerprint("v1:b")])
tokens = st.sampled_from([Token("t1"), Token("t2"), Token("t3")])
recipients = st.sampled_from(["", "one", "other"])
# A store replaces or refuses control characters (tests/unit/claims/test_wire_form.py).
words = st.text(st.characters(exclude_categories=("Cc",)), max_size=5)
originals = st.builds(Original, words, words, words, st.just(1.5))
# Time passes in tens and everything ends at a five: Redis's own clock goes on, and no step may fall on an edge.
tens = st.integers(1, 12).map(lambda number: number * 10.0)
ends = tens.map(lambda seconds: seconds + 5.0)
claims = st.builds(Claim, keys, tokens, ends, ends)
confirmations = st.builds(Confirm, keys, originals, ends, st.sampled_from([0.0, 10.0, 50.0]), recipients, tokens)

KEEP_FOR = 75.0

_Entry: TypeAlias = tuple[Token | Original, float, float, str]
"""The holder's token or the accepted message; since when; until when; the recipient of the acceptance."""


def check(row: Row, answer: Answer, *, remaining: float, original: object, age: float) -> None:
    """Compares an answer with a row's. `remaining` and `age` in seconds."""
    if row.answer is Held:
        assert isinstance(answer, Held)
        assert answer.remaining == pytest.approx(remaining, abs=NEARLY)
    elif row.answer is Sent:
        assert isinstance(answer, Sent)
        assert answer.original == original
        assert answer.age == pytest.approx(age, abs=NEARLY)
    else:
        assert answer == row.answer


class LifeCycle(RuleBasedStateMachine):
    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        backend.clear()
        self.runner = asyncio.Runner()
        self.store = backend.store()
        self.runner.run(self.store.open())
        self.now = 0.0
        self.model: dict[Fingerprint, _Entry] = {}
        self.generation = ""

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def ask(self, command: Command) -> Answer:
        (answer,) = self.runner.run(self.store.execute([command]))
        return answer

    def state(self, key: Fingerprint) -> State:
        owner, _, until, _ = self.model.get(key, ("", 0.0, 0.0, ""))
        if until <= self.now:
            return State.FREE
        return State.SENT if isinstance(owner, Original) else State.HELD

    def condition(self, command: KeyCommand, state: State) -> Condition:
        if isinstance(command, Confirm) and command.age >= command.window:
            return Condition.PAST_WINDOW
        if state is State.FREE:
            return Condition.IN_WINDOW
        owner, since, _, _ = self.model[command.key]
        if state is State.HELD:
            is_same = not isinstance(command, Peek) and command.token == owner
            return Condition.SAME_TOKEN if is_same else Condition.OTHER_TOKEN
        if isinstance(command, Confirm):
            assert isinstance(owner, Original)
            return Condition.SAME_MESSAGE if command.original.id == owner.id else Condition.OTHER_MESSAGE
        is_open = not isinstance(command, Claim | Peek) or self.now - since < command.window
        return Condition.IN_WINDOW if is_open else Condition.PAST_WINDOW

    def carry_out(self, command: KeyCommand) -> None:
        """Compares the store's answer with the one that the table gives, and changes the model as the table says."""
        state = self.state(command.key)
        row = find_row(state, type(command), self.condition(command, state))
        answer = self.ask(command)
        owner, since, until, _ = self.model.get(command.key, ("", 0.0, 0.0, ""))
        check(row, answer, remaining=until - self.now, original=owner, age=self.now - since)
        match command, row.new_state:
            case Claim() | Renew(), State.HELD:
                self.model[command.key] = (command.token, self.now, self.now + command.lease, "")
            case Confirm(), State.SENT:
                accepted = self.now - command.age
                self.model[command.key] = (command.original, accepted, accepted + command.window, command.recipient)
            case _, State.FREE:
                del self.model[command.key]

    @rule(seconds=tens)
    def time_passes(self, seconds: float) -> None:
        self.backend.advance(seconds)
        self.now += seconds

    @rule(command=claims)
    def claim(self, command: Claim) -> None:
        self.carry_out(command)

    @rule(command=st.builds(Peek, keys, ends))
    def peek(self, command: Peek) -> None:
        self.carry_out(command)

    @rule(command=confirmations)
    def confirm(self, command: Confirm) -> None:
        self.carry_out(command)

    @rule(command=st.builds(Renew, keys, tokens, ends))
    def renew(self, command: Renew) -> None:
        self.carry_out(command)

    @rule(command=st.builds(Release, keys, tokens))
    def release(self, command: Release) -> None:
        self.carry_out(command)

    @rule(to=recipients)
    def forget(self, to: str) -> None:
        sent = {key: self.model[key] for key in self.model if self.state(key) is State.SENT}
        matching = [key for key, (_, _, _, recipient) in sent.items() if recipient == to]
        seen: dict[Fingerprint, Entry] = {}

        def matches(entry: Entry) -> bool:
            seen[entry.key] = entry
            return entry.recipient == to

        assert self.runner.run(self.store.forget(matches)) == len(matching)
        assert seen.keys() == sent.keys()
        for key, entry in seen.items():
            original, since, _, recipient = sent[key]
            assert (entry.original, entry.recipient) == (original, recipient)
            assert entry.age == pytest.approx(self.now - since, abs=NEARLY)
        for key in matching:
            del self.model[key]
        answer = self.ask(AskGeneration())
        assert isinstance(answer, Generation)
        assert answer.name not in ("", self.generation)
        self.generation = answer.name

    @rule()
    def ask_generation(self) -> None:
        assert self.ask(AskGeneration()) == Generation(self.generation)


@pytest.mark.parametrize("name", store_backends.NAMES)
def test_every_store_follows_the_table_in_any_order_of_commands(name: str, tmp_path: Path) -> None:
    with store_backends.backend(name, tmp_path) as backend:
        run_state_machine_as_test(
            lambda: LifeCycle(backend),
            settings=settings(
                max_examples=EXAMPLES[name],
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


# Each row

KEY, OWNER, OTHER = Fingerprint("v1:c"), Token("owner"), Token("other")
FIRST, SECOND = Original("rec-1", "<1@example.org>", "250 ok", 1.5), Original("rec-2", "", "250 ok", 1.5)
LEASE, WINDOW, PASSED = 30.0, 600.0, 10.0
CONFIRMED_AGE = 20.0


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.state.value}-{name(row.trigger)}-{row.condition.value}")
async def test_every_store_follows_each_row_of_the_table(backend: Backend, row: Row) -> None:
    store = backend.store()
    await store.open()
    before: list[Command] = {
        State.FREE: [],
        State.HELD: [Claim(KEY, OWNER, LEASE, WINDOW)],
        State.SENT: [Confirm(KEY, FIRST, WINDOW)],
    }[row.state]
    await store.execute(before)
    backend.advance(PASSED)
    if isinstance(row.trigger, Event):
        await happens(row.trigger, store, backend)
    else:
        [answer] = await store.execute([command_of(row)])
        check(row, answer, remaining=LEASE - PASSED, original=FIRST, age=PASSED)
    await check_state(store, row)
    await store.close()


def name(trigger: Trigger) -> str:
    return trigger.value if isinstance(trigger, Event) else trigger.__name__


async def happens(event: Event, store: Store, backend: Backend) -> None:
    match event:
        case Event.LEASE_ENDS:
            backend.advance(LEASE)
        case Event.WINDOW_ENDS:
            backend.advance(WINDOW)
        case Event.FORGET:
            await store.forget(lambda _: True)


def command_of(row: Row) -> Command:
    """Returns a command for which the row's condition holds."""
    token = OWNER if row.condition is Condition.SAME_TOKEN else OTHER
    window = PASSED / 2 if row.condition is Condition.PAST_WINDOW else WINDOW
    original = FIRST if row.condition is Condition.SAME_MESSAGE else SECOND
    possible: list[Command] = [
        Claim(KEY, token, LEASE, window),
        Peek(KEY, window),
        Confirm(KEY, original, window, CONFIRMED_AGE, token=token),
        Renew(KEY, token, LEASE),
        Release(KEY, token),
    ]
    return next(command for command in possible if type(command) is row.trigger)


async def check_state(store: Store, row: Row) -> None:
    """Compares what the key holds with the row's new state. None means: the same as before."""
    own_command = OWNER if row.condition is Condition.SAME_TOKEN else OTHER
    holder = own_command if row.new_state is State.HELD else OWNER
    peeked, renewed = await store.execute([Peek(KEY, WINDOW), Renew(KEY, holder, LEASE)])
    match row.new_state or row.state:
        case State.FREE:
            assert (peeked, renewed) == (Free(), Free())
        case State.HELD:
            assert isinstance(peeked, Held)
            assert peeked.remaining == pytest.approx(LEASE if row.new_state else LEASE - PASSED, abs=NEARLY)
            assert renewed == Done()
        case State.SENT:
            assert isinstance(peeked, Sent)
            is_first = row.new_state is None or row.condition is Condition.SAME_MESSAGE
            assert peeked.original == (FIRST if is_first else SECOND)
            assert peeked.age == pytest.approx(CONFIRMED_AGE if row.new_state else PASSED, abs=NEARLY)
