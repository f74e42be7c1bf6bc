"""Reload: each setting that can change does, transactions keep what they began with, and mistakes change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient, send
from parts.peer import ScriptedPeer
from parts.waiting import until

from relay.core.errors import SettingsError
from relay.logins.passwords import hash_password
from relay.monitor.log_writer import LogWriter
from relay.records.pseudonyms import Pseudonyms
from relay.runtime.systemd import ServiceManager
from relay.service.reload import Reloads
from relay.settings.reload import RELOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parts.certificates import Authority

    from relay.service import Service

SENDER, ONE, TWO = b"a@example.test", b"b@example.test", b"c@example.test"
MAIL = b"From: a@example.test\r\nSubject: x\r\n\r\nhello\r\n"
SECRET = "0123456789abcdef" * 2

# Where each setting is in force


def limits(service: Service) -> Any:
    return service.listener.table.limits


def used(service: Service) -> Any:
    """Returns what a transaction uses that begins now."""
    return service.listener.table.dependencies


def first_target(service: Service) -> Any:
    return used(service).upstream._targets[0]


def in_files(folder: Path, authority: Authority) -> dict[str, tuple[dict[str, object], Callable[[Service], object]]]:
    """Returns the rows of settings that name files."""
    (folder / "password").write_text("from the file\n")
    (folder / "secret").write_text(f"{SECRET}\n")
    (folder / "users").write_text(f"anna:{hash_password(b's3cret')}\n")
    certificate = str(authority.issue())
    with_user = "smtp://u@127.0.0.1:1"
    password = {"upstream.url": with_user, "upstream.password_file": f"{folder}/password"}
    starttls = {"upstream.url": "smtp+starttls://127.0.0.1:1"}
    fallback = {"upstream.fallback_urls": ["smtp://u@127.0.0.2:1"]}
    named = Pseudonyms(SECRET.encode(), plain=False)("a@example.test")
    return {
        "tls.certificate": ({"tls.certificate": certificate}, lambda s: s.listener.table.tls is not None),
        "tls.key": (
            {"tls.certificate": certificate, "tls.key": certificate},
            lambda s: str(s.prepared.certificate and s.prepared.certificate.key) == certificate,
        ),
        "auth.users_file": (
            {"auth.mode": "file", "auth.users_file": f"{folder}/users"},
            lambda s: type(used(s).authenticator).__name__ == "FileAuthenticator",
        ),
        "upstream.password_file": (password, lambda s: first_target(s).password == "from the file"),
        "upstream.fallback_password_files": (
            fallback | {"upstream.fallback_password_files": [f"{folder}/password"]},
            lambda s: used(s).upstream._targets[-1].password == "from the file",
        ),
        "upstream.token_file": (
            {"upstream.url": with_user, "upstream.token_file": f"{folder}/password"},
            lambda s: first_target(s).token is not None,
        ),
        "upstream.ca_file": (
            starttls | {"upstream.ca_file": str(authority.certificate)},
            lambda s: b"BEGIN CERTIFICATE" in s.prepared.upstream.authorities,
        ),
        "record.secret_file": (
            {"record.secret_file": f"{folder}/secret"},
            lambda s: used(s).pseudonyms("a@example.test") == named,
        ),
    }


def rows() -> dict[str, tuple[dict[str, object], Callable[[Service], object]]]:
    """Returns for each setting the values to reload, and what holds after that and not before."""

    def row(key: str, value: object, holds: Callable[[Service], object], **more: object) -> None:
        found[key] = ({key: value} | {name.replace("__", "."): other for name, other in more.items()}, holds)

    found: dict[str, tuple[dict[str, object], Callable[[Service], object]]] = {}
    row("listen.networks", ["192.0.2.0/24"], lambda s: s.listener.table.refusal("127.0.0.1"))
    row("listen.proxy_networks", ["192.0.2.0/24"], lambda s: s.listener.table.expects_proxy_header("192.0.2.1"))
    row("listen.bare_line_ends", "reject", lambda s: not limits(s).bare_line_ends)
    row("tls.self_signed", True, lambda s: s.listener.table.tls is not None)
    row("auth.mode", "any", lambda s: used(s).authenticator is not None)
    row("upstream.url", "smtp://127.0.0.1:1", lambda s: [*used(s).upstream.states()] == ["127.0.0.1:1"])
    row("upstream.fallback_urls", ["smtp://127.0.0.2:1"], lambda s: len(used(s).upstream.states()) > 1)
    row(
        "upstream.password",
        "s3cret",
        lambda s: first_target(s).password == "s3cret",
        upstream__url="smtp://u@127.0.0.1:1",
    )
    row(
        "upstream.token_command",
        ["/bin/true"],
        lambda s: first_target(s).token is not None,
        upstream__url="smtp://u@127.0.0.1:1",
    )
    row(
        "upstream.verify_certificate",
        False,
        lambda s: first_target(s).tls and not first_target(s).tls.check_hostname,
        upstream__url="smtp+starttls://127.0.0.1:1",
    )
    row("upstream.connections", 3, lambda s: used(s).upstream._pool._slots._size == 3)
    row("upstream.connect_timeout", "3s", lambda s: first_target(s).limit == 3)
    row("upstream.greeting_timeout", "3s", lambda s: first_target(s).greeting_limit == 3)
    row("upstream.helo_name", "mx.example.test", lambda s: first_target(s).helo_name == "mx.example.test")
    row("upstream.reply_timeout", "3s", lambda s: used(s).upstream._context.reply_timeout == 3)
    row("upstream.dot_timeout", "3s", lambda s: used(s).upstream._context.dot_timeout == 3)
    row("upstream.patience", "3s", lambda s: used(s).upstream._context.patience == 3)
    row("upstream.received_field", True, lambda s: used(s).policy.received_field)
    row("dedup.window", "3m", lambda s: {each.window for each in used(s).judge.rulings.values()} >= {180.0})
    row("dedup.mode", "observe", lambda s: s.metrics.observing._value.get() == 1)
    row("dedup.wait", "3s", lambda s: used(s).policy.wait == 3)
    row("dedup.presets", [], lambda s: used(s).judge.rules == ())
    row("dedup.key_header", ["X-Key"], lambda s: used(s).judge.key_headers == {"x-key"})
    row("dedup.on_uncertain", "keep", lambda s: used(s).policy.keep_uncertain)
    row("dedup.reply", "explain", lambda s: used(s).policy.explain_repeats)
    row("record.trace", "repeats", lambda s: not used(s).policy.traces_all)
    row("record.subjects", True, lambda s: used(s).policy.traces_subjects)
    row("record.addresses", True, lambda s: used(s).pseudonyms("a@example.test") == "a@example.test")
    row("limits.message_size", "3MiB", lambda s: limits(s).message_size == 3 << 20)
    row("limits.memory", "8MiB", lambda s: used(s).memory.size == limits(s).message_size == 8 << 20)
    row("limits.recipients", 3, lambda s: used(s).policy.recipients == 3)
    row("limits.sessions", 3, lambda s: limits(s).sessions == 3)
    row("limits.client_sessions", 3, lambda s: limits(s).client_sessions == 3)
    row("limits.client_upstream_connections", 3, lambda s: used(s).upstream._pool._idle._most_of_client == 3)
    row("limits.message_rate", 3, lambda s: s.listener.table.messages_per_minute.per_minute == 3)
    row("limits.recipient_rate", 3, lambda s: s.listener.table.recipients_per_minute.per_minute == 3)
    row("limits.session_idle", "3s", lambda s: limits(s).session_idle == 3)
    row("limits.session_time", "3m", lambda s: limits(s).session_time == 180)
    row("limits.min_data_rate", 3, lambda s: limits(s).min_data_rate == 3)
    row("limits.commands", 3, lambda s: limits(s).commands == 3)
    row("limits.drain", "3s", lambda s: s.loaded.settings.limits.drain == 3)
    row("log.addresses", True, lambda s: used(s).reporter.messages._addresses)
    row("rules", [{"name": "new", "subject": "^x", "action": "exempt"}], lambda s: used(s).judge.rules[0].name == "new")
    row("ignore", [{"parameter": "utm", "url": "link"}], lambda s: len(s.loaded.settings.ignore) == 1)
    return found


def test_each_setting_that_can_change_has_a_row_below(tmp_path: Path, authority: Authority) -> None:
    of_the_log = {"log.format", "log.level"}  # tests/e2e/test_reload.py
    assert rows().keys() | in_files(tmp_path, authority).keys() | of_the_log == RELOAD


async def test_each_setting_that_can_change_does_and_changes_back(
    peer: ScriptedPeer, tmp_path: Path, authority: Authority
) -> None:
    wrong = []
    async with servers.relay(peer.url) as relay:
        for key, (changes, holds) in (rows() | in_files(tmp_path, authority)).items():
            before = bool(holds(relay.service))
            done = await relay.reload(changes)
            after = bool(holds(relay.service))
            if (before, done, after) != (False, True, True):
                wrong.append((key, before, done, after, relay.service.reload_problem))
            assert await relay.reload()
    assert wrong == []


# What goes on during a reload


async def test_a_transaction_ends_with_the_upstream_and_the_limits_with_which_it_began(peer: ScriptedPeer) -> None:
    async with ScriptedPeer() as other, servers.relay(peer.url) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.begin(SENDER, ONE)
            smaller = {"limits.message_size": 1000, "limits.memory": "1MiB", "upstream.url": other.url}
            assert await relay.reload(smaller | {"limits.recipients": 1, "listen.bare_line_ends": "reject"})
            assert (await client.command(b"RCPT TO:<%b>" % TWO)).code == 250
            assert (await client.content(MAIL + b"x" * 2000 + b"\n" + b"y\r\n")).code == 250
            assert [each.recipients for each in peer.accepted] == [(ONE, TWO)]
            assert (await client.command(b"MAIL FROM:<%b> SIZE=2000" % SENDER)).code == 552
            assert [each.code for each in await client.begin(SENDER, ONE, TWO)] == [250, 452]
            assert (await client.content(MAIL)).code == 250
        assert other.copies() == {ONE: 1}
        await until(lambda: not peer.open_sessions, "the end of the connections before")
        states = [sample.labels for sample in next(iter(relay.service.metrics.upstream_used.collect())).samples]
        assert states == [{"upstream": f"127.0.0.1:{other.port}"}]


async def test_an_upstream_that_is_left_does_not_say_that_the_new_one_is_down(peer: ScriptedPeer) -> None:
    async with ScriptedPeer() as other, servers.relay(peer.url, {"upstream.patience": "0s"}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            await client.command(b"MAIL FROM:<%b>" % SENDER)
            assert await relay.reload({"upstream.url": other.url})
            await peer.stop()
            assert (await client.command(b"RCPT TO:<%b>" % ONE)).code == 451
        assert relay.service.state()[0]
        assert relay.service.metrics.upstream_up._value.get() == 1


async def test_connections_are_kept_unless_the_upstream_changes(peer: ScriptedPeer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("one\n")
    peer.credentials = (b"u", b"one")
    url = peer.url.replace("smtp://", "smtp://u@")
    async with servers.relay(url, {"upstream.password_file": str(password)}) as relay:
        upstream = relay.service.upstream
        assert await relay.reload({"dedup.window": "1h", "limits.sessions": 7})
        assert relay.service.upstream is upstream
        assert (await send(relay.port, SENDER, [ONE], MAIL)).ok
        assert len(peer.sessions) == 1
        await asyncio.to_thread(password.write_text, "two\n")
        peer.credentials = (b"u", b"two")
        assert await relay.reload()
        assert relay.service.upstream is not upstream
        assert (await send(relay.port, SENDER, [TWO], MAIL)).ok
    assert peer.copies() == {ONE: 1, TWO: 1}


async def test_open_sessions_log_in_as_the_new_settings_say(peer: ScriptedPeer, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password(b's3cret')}\n")
    given = b"AUTH PLAIN " + b64encode(b"\0anna\0s3cret")
    async with servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        await client.command(b"EHLO me")
        assert (await client.command(given)).code == 500
        assert await relay.reload({"auth.mode": "file", "auth.users_file": str(users)})
        assert b"AUTH" in (await client.command(b"EHLO me")).text
        assert (await client.command(given)).code == 235
        await asyncio.to_thread(users.write_text, "not a line\n")
        assert not await relay.reload({"auth.mode": "file", "auth.users_file": str(users)})


async def test_another_upstream_does_not_get_the_credentials_of_a_client_that_logged_in_before(
    peer: ScriptedPeer,
) -> None:
    peer.credentials = (b"anna", b"s3cret")
    async with (
        ScriptedPeer() as other,
        servers.relay(peer.url, {"auth.mode": "passthrough"}) as relay,
        await RawClient.open(relay.port) as client,
    ):
        await client.command(b"EHLO me")
        assert (await client.command(b"AUTH PLAIN " + b64encode(b"\0anna\0s3cret"))).code == 235
        assert await relay.reload({"auth.mode": "off", "upstream.url": other.url})
        assert [each.code for each in await client.begin(SENDER, ONE)] == [250]
        assert (await client.content(MAIL)).code == 250
    assert other.copies() == {ONE: 1}


async def test_new_rules_count_from_the_reload_on_and_old_ones_stay(peer: ScriptedPeer) -> None:
    rule = {"name": "codes of ours", "subject": "^x", "action": "observe"}
    async with servers.relay(peer.url) as relay:
        assert await relay.reload({"rules": [rule]})
        exposition = relay.service.metrics.exposition("")[0].decode()
        zero = 'smtp_dedup_repeats_total{outcome="would_suppress",rule="codes of ours"} 0.0'
        assert zero in exposition
        for _ in "ab":
            assert (await send(relay.port, SENDER, [ONE], MAIL)).ok
        assert zero.replace(" 0.0", " 1.0") in relay.service.metrics.exposition("")[0].decode()
        assert await relay.reload()
        assert zero.replace(" 0.0", " 1.0") in relay.service.metrics.exposition("")[0].decode()
    assert peer.copies() == {ONE: 2}


async def test_a_message_that_waits_for_memory_gets_what_a_reload_adds(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"limits.memory": "1MiB"}) as relay:
        memory = used(relay.service).memory
        held = memory.reserve(1 << 20)
        waiting = asyncio.create_task(memory.wait(1 << 20, 60.0))
        await until(lambda: memory._waiting, "a message that waits")
        assert await relay.reload({"limits.memory": "4MiB"})
        assert await waiting is not None
        assert held is not None
        # Less than is in use: nothing is taken away, and nothing more is given.
        assert await relay.reload()
        assert memory.used == 2 << 20
        assert memory.reserve(1) is None


# Mistakes


async def test_a_mistake_changes_nothing_and_is_shown_until_the_next_good_reload(
    peer: ScriptedPeer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with servers.relay(peer.url) as relay:
        service = relay.service
        before, dependencies = service.prepared, used(service)
        successful = service.metrics.reload_successful._value
        time = service.metrics.reload_time._value.get()
        assert successful.get() == 1
        for changes, problem in (
            ({"dedup.window": "soon", "limits.sessions": -1}, "dedup.window"),
            ({"dedup.window": "1h", "tls.certificate": f"{tmp_path}/none"}, "tls.certificate"),
            ({"upstream.url": "smtp://u@127.0.0.1:1", "upstream.password_file": f"{tmp_path}/none"}, "password_file"),
            ({"upstream.url": "smtps://127.0.0.1:1", "upstream.ca_file": f"{tmp_path}/none"}, "upstream.ca_file"),
            ({"auth.mode": "file", "auth.users_file": f"{tmp_path}/none"}, "auth.users_file"),
        ):
            assert not await relay.reload(changes)
            assert service.prepared is before
            assert used(service) is dependencies
            assert successful.get() == 0
            assert service.metrics.reload_time._value.get() == time
            assert problem in service.reload_problem
            assert "\n" not in service.summary
            assert problem in service.summary
        assert "(and 1 more)" not in service.reload_problem
        assert await relay.reload()
        assert successful.get() == 1
        assert service.metrics.reload_time._value.get() > time
        assert "reload" not in service.summary
    assert "settings not reloaded, those before stay in force" in caplog.text


async def test_what_needs_a_restart_is_named_and_the_rest_is_used(
    peer: ScriptedPeer, caplog: pytest.LogCaptureFixture
) -> None:
    async with servers.relay(peer.url) as relay:
        assert await relay.reload({"listen.address": "127.0.0.1:9", "store.timeout": "2s", "dedup.wait": "7s"})
        assert relay.service.restart_to_change == ("listen.address", "store.timeout")
        assert relay.service.summary.endswith("; restart to change: listen.address, store.timeout")
        assert str(relay.service.loaded.settings.listen.address) == "127.0.0.1:0"
        assert used(relay.service).policy.wait == 7
        assert await relay.reload()
        assert "restart" not in relay.service.summary
    assert "settings that need a restart have changed" in caplog.text


async def test_another_password_of_the_store_needs_a_restart(peer: ScriptedPeer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    redis = {"store.url": "redis://127.0.0.1:1", "store.password_file": str(password)}
    async with servers.relay(peer.url, redis) as relay:
        assert await relay.reload()
        assert relay.service.restart_to_change == ()
        await asyncio.to_thread(password.write_text, "sesame\n")
        for _ in "ab":
            assert await relay.reload()
            assert relay.service.restart_to_change == ("store.password_file",)
        assert "sesame" not in repr(relay.service.prepared)


async def test_a_certificate_stays_as_long_as_clients_begin_with_tls(peer: ScriptedPeer, authority: Authority) -> None:
    tls = {"tls.certificate": str(authority.issue()), "listen.tls_address": "127.0.0.1:0"}
    async with servers.relay(peer.url, tls) as relay:
        keys = {key: value for key, value in relay.keys.items() if key not in tls}
        object.__setattr__(relay, "keys", keys)
        assert not await relay.reload()
        assert "tls.certificate" in relay.service.reload_problem
        assert relay.service.listener.table.tls is not None


async def test_a_fault_changes_nothing(peer: ScriptedPeer) -> None:
    def fail() -> Any:
        raise RuntimeError("no such thing")

    async with servers.relay(peer.url) as relay:
        before = relay.service.prepared
        assert not await servers.reload(relay.service, fail, relay.reading, servers.ignore_log)
        assert relay.service.prepared is before
        assert relay.service.reload_problem == "an internal fault"


# One at a time


@pytest.fixture
def devnull() -> Iterator[TextIO]:
    with Path(os.devnull).open("w") as stream:
        yield stream


@pytest.fixture
def log_writer(devnull: TextIO) -> LogWriter:
    return LogWriter(devnull)


async def test_signals_during_a_reload_lead_to_one_more(
    peer: ScriptedPeer, tmp_path: Path, log_writer: LogWriter
) -> None:
    reads: list[int] = []
    goes_on = threading.Event()

    def load() -> Any:
        reads.append(len(reads))
        goes_on.wait()
        raise SettingsError("wrong")

    notified = tmp_path / "notify"
    with open_notify_socket(notified) as received:
        async with servers.relay(peer.url) as relay:
            reloads = Reloads(relay.service, load, ServiceManager({"NOTIFY_SOCKET": str(notified)}), log_writer)
            for _ in range(5):
                reloads.request()
                await until(lambda: reads, "the first read")
            assert reads == [0]
            goes_on.set()
            await until(lambda: len(received()) == 4, "the end of two reloads")
            assert reads == [0, 1]
            kinds = [each.partition("\n")[0] for each in received()]
            assert kinds == ["RELOADING=1", "READY=1"] * 2
            assert all("MONOTONIC_USEC=" in each for each in received()[::2])
            assert all("reload failed: wrong" in each for each in received()[1::2])
            await reloads.close()


class _FaultyWriter(LogWriter):
    def setFormatter(self, fmt: object) -> None:  # noqa: N802
        raise OSError(f"a fault beside {fmt}")


@pytest.fixture
def faulty_writer(devnull: TextIO) -> LogWriter:
    return _FaultyWriter(devnull)


async def test_a_fault_after_a_reload_keeps_no_later_one_from_running(
    peer: ScriptedPeer, tmp_path: Path, faulty_writer: LogWriter
) -> None:
    notified = tmp_path / "notify"
    with open_notify_socket(notified) as received:
        async with servers.relay(peer.url) as relay:
            manager = ServiceManager({"NOTIFY_SOCKET": str(notified)})
            reloads = Reloads(relay.service, lambda: relay.service.loaded, manager, faulty_writer)
            reloads.request()
            await until(lambda: len(received()) == 2, "the end of a reload")
            reloads.request()
            await until(lambda: len(received()) == 4, "the end of another")
            assert [each.partition("\n")[0] for each in received()] == ["RELOADING=1", "READY=1"] * 2
            await reloads.close()


@contextlib.contextmanager
def open_notify_socket(path: Path) -> Any:
    """Plays the service manager. Yields a function that returns what it has received."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(os.fspath(path))
        listening.setblocking(False)
        messages: list[str] = []

        def received() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    messages.append(listening.recv(4096).decode())
            return messages

        yield received
