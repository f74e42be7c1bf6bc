"""Which upstream a connection uses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from parts.faults import Step, drop, hang, say, say_and_drop, wait
from parts.logged import events
from parts.peer import ScriptedPeer
from parts.ports import free_port
from parts.upstream_delivery import LARGE, ONE, SENDER, THREE, TWO, code, deliver, offer, prepare, upstream
from parts.waiting import until

from relay.core.delivery import Unclear
from relay.core.errors import UpstreamDown, UpstreamRefused
from relay.core.reply import UNREACHABLE
from relay.upstream.connect import Target
from relay.upstream.connection import Connection
from relay.upstream.route import FIRST_PAUSE, LONGEST_PAUSE, Route


class Hosts:
    """Hosts by name, some of them down, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.down: dict[str, Exception] = {}
        self.tried: list[str] = []
        self.slow: asyncio.Event | None = None

    async def connect(self, target: Target) -> Connection:
        self.tried.append(target.host)
        if self.slow:
            await self.slow.wait()
        if target.host in self.down:
            raise self.down[target.host]
        wire: Any = None
        return Connection(wire, {}, self.now)

    def route(self, *names: str) -> Route:
        return Route([Target(name, 25) for name in names], self.connect, lambda: self.now)

    def recent(self) -> list[str]:
        tried, self.tried = self.tried, []
        return tried


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


async def test_the_preferred_upstream_is_used_while_it_answers(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    assert [(await route.connection()).rank for _ in range(2)] == [0, 0]
    assert hosts.recent() == ["a", "a"]


async def test_a_failed_upstream_is_skipped_for_a_pause_that_doubles(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    pause = FIRST_PAUSE
    for _ in range(8):
        assert (await route.connection()).rank == 1
        assert hosts.recent() == ["a", "b"]
        assert route.states() == {"a:25": False, "b:25": True}
        hosts.now += pause - 0.01
        assert (await route.connection()).rank == 1
        assert hosts.recent() == ["b"]
        hosts.now += 0.01
        pause = min(pause * 2, LONGEST_PAUSE)
    hosts.down.clear()
    recovered = await route.connection()
    assert recovered.rank == 0
    route.note_success(recovered)
    assert route.states() == {"a:25": True, "b:25": True}


async def test_only_one_connection_is_the_trial_of_a_half_open_breaker(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    await route.connection()
    hosts.now += FIRST_PAUSE
    hosts.recent()
    hosts.slow = asyncio.Event()
    trial, other = (asyncio.create_task(route.connection()) for _ in range(2))
    await until(lambda: hosts.tried == ["a", "b"], "both connecting")
    hosts.slow.set()
    assert [(await trial).rank, (await other).rank] == [1, 1]


async def test_a_cancelled_trial_is_repeated_later(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    await route.connection()
    hosts.now += FIRST_PAUSE
    hosts.slow = asyncio.Event()
    trial = asyncio.create_task(route.connection())
    await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    hosts.slow, hosts.down = None, {}
    assert (await route.connection()).rank == 1
    hosts.now += 2 * FIRST_PAUSE
    assert (await route.connection()).rank == 0


async def test_an_upstream_that_hangs_in_a_transaction_is_skipped(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    first = await route.connection()
    assert route.note_failure(first, "no reply") == "a:25: no reply"
    assert (await route.connection()).rank == 1
    hosts.now += FIRST_PAUSE
    again = await route.connection()
    assert again.rank == 0
    route.note_failure(first, "opened before")
    route.note_failure(again, "no reply")
    hosts.now += 2 * FIRST_PAUSE - 0.01
    assert (await route.connection()).rank == 1


async def test_an_upstream_that_never_answers_a_dot_gets_trials_only(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    first = await route.connection()
    route.note_failure(first, "hangs after the dot")
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE):
        hosts.now += pause - 0.01
        assert (await route.connection()).rank == 1
        hosts.now += 0.01
        trial = await route.connection()
        assert trial.rank == 0
        assert (await route.connection()).rank == 1
    route.note_success(trial)
    assert (await route.connection()).rank == 0
    route.note_failure(first, "hangs after the dot")
    hosts.now += FIRST_PAUSE
    assert (await route.connection()).rank == 0


async def test_if_all_have_failed_the_one_whose_pause_ends_first_is_tried_first(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    fallback = await route.connection()
    hosts.now += FIRST_PAUSE
    await route.connection()
    route.note_failure(fallback, "closed once")
    hosts.recent()
    assert (await route.connection()).rank == 1
    assert hosts.recent() == ["b"]


async def test_simultaneous_failures_count_once(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    for connection in [await route.connection() for _ in range(3)]:
        route.note_failure(connection, "closed")
    hosts.now += FIRST_PAUSE
    assert (await route.connection()).rank == 0


async def test_the_log_reports_once_that_an_upstream_is_skipped_and_used_again(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.upstream")
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    for _ in range(2):
        route.note_success(await route.connection())
        hosts.now += FIRST_PAUSE
    hosts.down.clear()
    hosts.now += LONGEST_PAUSE
    for _ in range(2):
        route.note_success(await route.connection())
    assert events(caplog) == [
        ("WARNING", "upstream is left alone for a while", {"upstream": "a:25", "error": "gone"}),
        ("INFO", "upstream is used again", {"upstream": "a:25"}),
    ]


async def test_a_single_upstream_is_never_skipped(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    route = hosts.route("a")
    caplog.set_level(logging.INFO, "relay.upstream")
    route.note_failure(await route.connection(), "closed")
    route.note_success(await route.connection())
    assert not caplog.records


async def test_a_pooled_connection_to_a_fallback_is_used_until_the_preferred_upstream_may_be_tried(
    hosts: Hosts,
) -> None:
    route = hosts.route("a", "b")
    hosts.down["a"] = UpstreamDown("gone")
    pooled = await route.connection()
    assert route.prefers(pooled)
    hosts.now += FIRST_PAUSE
    assert not route.prefers(pooled)
    hosts.down.clear()
    again = await route.connection()
    assert not route.prefers(again)
    route.note_success(again)
    assert route.prefers(again)


async def test_if_all_have_failed_each_is_tried(hosts: Hosts) -> None:
    route = hosts.route("a", "b")
    hosts.down = {"a": UpstreamRefused("refused"), "b": UpstreamDown("gone")}
    for _ in range(2):
        with pytest.raises(UpstreamDown, match="gone"):
            await route.connection()
        assert hosts.recent() == ["a", "b"]
    hosts.down = {"a": UpstreamRefused("a"), "b": UpstreamRefused("b")}
    with pytest.raises(UpstreamRefused, match="a"):
        await route.connection()


# With scripted peers


async def test_mail_goes_to_the_next_upstream_while_the_first_is_down() -> None:
    async with ScriptedPeer() as second, upstream(free_port(), second.port, patience=0.0) as up:
        assert code(await deliver(up, ONE)) == 250
        assert second.copies()[ONE] == 1


@pytest.mark.parametrize("step", [Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA])
@pytest.mark.parametrize("fault", [drop(), say_and_drop(b"421 4.3.2 going down")])
async def test_mail_of_a_connection_lost_before_the_dot_goes_to_the_next_upstream(
    peer: ScriptedPeer, step: Step, fault: Any
) -> None:
    peer.on(step, fault, times=None)
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        assert code(await deliver(up, ONE, TWO)) == 250
        assert [second.copies()[path] for path in (ONE, TWO)] == [1, 1]
    assert not peer.received


async def test_mail_of_a_hanging_connection_goes_to_the_next_upstream(peer: ScriptedPeer) -> None:
    peer.on(Step.MAIL, hang())
    async with ScriptedPeer() as second, upstream(peer.port, second.port, reply_timeout=0.1) as up:
        assert code(await deliver(up, ONE)) == 250
        assert second.copies()[ONE] == 1


async def test_after_the_dot_no_copy_goes_to_the_next_upstream(peer: ScriptedPeer) -> None:
    """The first upstream may have accepted the message."""
    peer.on(Step.DOT, drop())
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        assert isinstance(await deliver(up, ONE), Unclear)
        assert not second.received


@pytest.mark.parametrize("fault", [hang, drop])
@pytest.mark.parametrize("step", [Step.DOT, Step.REPLY])
async def test_after_a_failure_at_the_dot_later_mail_goes_to_the_next_upstream(
    peer: ScriptedPeer, step: Step, fault: Any
) -> None:
    async with ScriptedPeer() as second, upstream(peer.port, second.port, dot_timeout=0.1) as up:
        gate = asyncio.Event()
        peer.on(Step.RCPT, wait(gate), times=2)
        both = [asyncio.create_task(deliver(up, path)) for path in (ONE, TWO)]
        gate.set()
        assert [code(await sent) for sent in both] == [250, 250]  # two connections are pooled
        peer.on(step, fault())
        assert isinstance(await deliver(up, THREE), Unclear)
        assert code(await deliver(up, ONE)) == 250
        assert second.copies() == {ONE: 1}


async def test_mail_goes_to_the_next_upstream_if_the_first_drops_every_upload(peer: ScriptedPeer) -> None:
    peer.on(Step.DATA, say_and_drop(b"354 go on"), times=None)
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        assert code(await deliver(up, ONE, content=LARGE)) == 250
        assert second.copies()[ONE] == 1


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO])
async def test_mail_goes_to_the_next_upstream_if_the_first_sends_invalid_replies(
    peer: ScriptedPeer, step: Step
) -> None:
    peer.on(step, say(b"hello there"), times=None)
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        assert code(await deliver(up, ONE)) == 250
        assert second.copies()[ONE] == 1


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO])
async def test_an_invalid_reply_before_a_transaction_is_retried(peer: ScriptedPeer, step: Step) -> None:
    peer.on(step, say(b"hello there"))
    async with upstream(peer.port) as up:
        assert code(await deliver(up, ONE)) == 250


async def test_a_refusal_is_final_and_not_tried_at_the_next_upstream(peer: ScriptedPeer) -> None:
    peer.on(Step.RCPT, say(b"451 4.7.1 greylisted"))
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE) == [451]
        await delivery.finish()
        assert not second.sessions


async def test_accepted_recipients_are_sent_again_to_the_next_upstream(peer: ScriptedPeer) -> None:
    gate = asyncio.Event()
    async with ScriptedPeer() as second, upstream(peer.port, second.port) as up:
        delivery = up.begin(SENDER)
        assert await offer(delivery, ONE) == [250]
        peer.on(Step.RCPT, wait(gate), drop(), times=None)
        gate.set()
        assert await offer(delivery, TWO) == [250]
        assert await prepare(delivery, ONE, TWO) == [250, 250]
        await delivery.finish()
        assert second.sessions


async def test_the_client_receives_451_if_no_upstream_can_be_reached() -> None:
    async with upstream(free_port(), free_port(), patience=0.0) as up:
        delivery = up.begin(SENDER)
        assert await delivery.rcpt(ONE) == UNREACHABLE


async def test_the_smallest_size_and_the_common_extensions_are_offered() -> None:
    async with (
        ScriptedPeer(extensions=[b"SIZE 1000", b"8BITMIME"]) as first,
        ScriptedPeer(extensions=[b"SIZE 500", b"SMTPUTF8", b"8BITMIME"]) as second,
        upstream(first.port, second.port) as up,
    ):
        await up.probe()
        assert (up.size_limit(), up.offers("8bitmime"), up.offers("smtputf8")) == (1000, True, False)
        first.on(Step.MAIL, drop(), times=None)
        assert code(await deliver(up, ONE)) == 250
        assert (up.size_limit(), up.offers("8bitmime"), up.offers("smtputf8")) == (500, True, False)
