"""Two processes with a claim manager each, on all stores: together they behave like one table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from parts import store_backends

from relay.claims.manager import ClaimManager
from relay.claims.store_client import BatchingStoreClient
from relay.core.claim import ClaimTerms, Fingerprint, Held, Original, Sent, Token, Won

if TYPE_CHECKING:
    from pathlib import Path

    from parts.store_backends import Backend

    from relay.claims.local_table import Verdict

EXAMPLES = {"memory": 60, "sqlite": 15, "redis": 15, "sentinel": 2, "cluster": 6}
LEASE = 1e6
"""Seconds. No lease ends in these tests."""
NEARLY = 4.0

# Time passes in tens and every window ends at a five: Redis's own clock goes on, and no step may fall on an edge.
TERMS = {
    Fingerprint(f"v1:{name}"): ClaimTerms(window, f"to {name}")
    for name, window in (("k", 15.0), ("l", 55.0), ("m", 995.0))
}
some_keys = st.sets(st.sampled_from(list(TERMS)), min_size=1)


class TwoManagers(RuleBasedStateMachine):
    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        backend.clear()
        self.now = 0.0
        self.runner = asyncio.Runner()
        self.clients = [BatchingStoreClient(backend.store(), limit=20) for _ in range(2)]
        self.lost: list[int] = []
        self.managers = [
            ClaimManager(client, lease=LEASE, clock=lambda: self.now, poll_every=0.001, on_lost=self.lost.append)
            for client in self.clients
        ]
        self.operator = backend.store()
        for client in self.clients:
            self.runner.run(client.start())
        self.count = 0
        self.open: list[tuple[ClaimManager, Token, dict[Fingerprint, ClaimTerms]]] = []
        self.sent: dict[Fingerprint, tuple[Original, float, float]] = {}
        """The accepted message, when it was accepted, and when its window ends."""

    def teardown(self) -> None:
        for manager, client in zip(self.managers, self.clients, strict=True):
            self.runner.run(manager.close())
            self.runner.run(client.close())
        self.runner.run(self.operator.close())
        self.runner.close()

    def expected(self, key: Fingerprint) -> Verdict:
        if any(key in terms for _, _, terms in self.open):
            return Held(LEASE)
        original, at, until = self.sent.get(key, (None, 0.0, 0.0))
        return Sent(original, self.now - at) if original and self.now < until else Won()

    async def claim_and_wait(
        self, manager: ClaimManager, token: Token, terms: dict[Fingerprint, ClaimTerms]
    ) -> dict[Fingerprint, Verdict]:
        """Claims as a transaction does: it waits for a claim that, as last reported, another process holds."""
        verdicts = await manager.claim(terms, token)
        for key, verdict in verdicts.items():
            if isinstance(verdict, Held) and not isinstance(self.expected(key), Held):
                assert await manager.wait_for_change([key], 20)
                verdicts |= await manager.claim({key: terms[key]}, token)
        return verdicts

    @rule(number=st.integers(0, 1), keys=some_keys)
    def claim(self, number: int, keys: set[Fingerprint]) -> None:
        self.count += 1
        manager, token = self.managers[number], Token(f"t{self.count}")
        terms = {key: TERMS[key] for key in sorted(keys)}
        verdicts = self.runner.run(self.claim_and_wait(manager, token, terms))
        for key, verdict in verdicts.items():
            expected = self.expected(key)
            assert type(verdict) is type(expected)
            if isinstance(verdict, Sent) and isinstance(expected, Sent):
                assert verdict.original == expected.original
                assert verdict.age == pytest.approx(expected.age, abs=NEARLY)
        won = {key: terms[key] for key, verdict in verdicts.items() if isinstance(verdict, Won)}
        if won:
            self.open.append((manager, token, won))

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0, 9), accepted=some_keys)
    def settle(self, number: int, accepted: set[Fingerprint]) -> None:
        manager, token, terms = self.open.pop(number % len(self.open))
        original = Original(token, "", "", 1.5)
        accepted_here = dict.fromkeys(terms.keys() & accepted, original)
        self.runner.run(manager.settle(token, accepted_here, terms.keys() - accepted, terms))
        self.sent |= {key: (original, self.now, self.now + terms[key].window) for key in accepted_here}
        assert self.lost == []

    @rule(keys=some_keys)
    def forget(self, keys: set[Fingerprint]) -> None:
        recipients = {TERMS[key].recipient for key in keys}
        freed = self.runner.run(self.operator.forget(lambda entry: entry.recipient in recipients))
        held = {key for _, _, terms in self.open for key in terms}
        alive = {key for key, (_, _, until) in self.sent.items() if self.now < until}
        assert freed == len((alive & keys) - held)
        for key in keys - held:
            self.sent.pop(key, None)

    @rule(seconds=st.sampled_from([10.0, 50.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.backend.advance(seconds)
        self.now += seconds


@pytest.mark.parametrize("name", store_backends.NAMES)
def test_managers_follow_the_model_on_every_store(name: str, tmp_path: Path) -> None:
    store_backends.run_machine(TwoManagers, name, tmp_path, EXAMPLES[name])
