"""Commands ask the running relay, and see what it sees: its store, its password, its files."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import redis
from click.testing import CliRunner, Result
from parts.admin_sockets import PROCESS, answer_of, listening
from parts.client import send
from parts.ports import HOST
from parts.redis_server import RedisServer
from parts.shared_relay import SharedRelay

from relay.admin.client import running_relay
from relay.cli import main
from relay.core.errors import AdminError
from relay.records.selection import Selection
from relay.settings import sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "a-secret-of-the-service"
ALICE, BOB = b"alice@example.test", b"bob@example.test"


def serving(store: str | None, **environment: str) -> SharedRelay:
    """Returns a relay that delivers into its own folder, keeps copies there, and listens on a socket in it."""
    made = SharedRelay(upstream="maildir:mail", store=store)
    made.arguments[made.arguments.index("maildir:mail")] = f"maildir:{made.state}/mail"
    made.arguments += ["--set", f"record.keep=maildir:{made.state}/kept"]
    made.environment |= {"RUNTIME_DIRECTORY": str(made.state), **environment}
    return made


@pytest.fixture(scope="module")
def service() -> Iterator[SharedRelay]:
    """A relay whose store only its own environment names, with the password."""
    with RedisServer() as server:
        redis.Redis(port=server.port).config_set("requirepass", PASSWORD)
        url = f"redis://:{PASSWORD}@{HOST}:{server.port}"
        with serving(None, RELAY_STORE__URL=url) as started:
            for number in range(4):
                asyncio.run(suppress(started, f"Subject: {number}\r\n\r\nx\r\n".encode()))
            yield started


async def suppress(relay: SharedRelay, content: bytes) -> None:
    for _ in range(2):
        assert (await send(relay.port, b"s@example.test", [ALICE, BOB], content)).ok


def call(relay: SharedRelay, *arguments: str, **environment: str) -> Result:
    """Runs a command in this process, whose environment names no store."""
    given = {"RUNTIME_DIRECTORY": str(relay.state), **environment}
    return CliRunner().invoke(main, arguments, env=given, prog_name="relay")


def records(relay: SharedRelay) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call(relay, "suppressed", "--json").stdout.splitlines()]


# Its store


def test_suppressed_and_why_see_its_store(service: SharedRelay) -> None:
    shown = call(service, "suppressed")
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 4)
    assert shown.stderr == "4 messages to 8 recipients in the last 24 h\n"
    shown = call(service, "why", records(service)[0]["id"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "  suppressed  for 2 recipients: h:" in shown.stdout
    assert "  copy        kept; to deliver it after all: relay release " in shown.stdout


def test_why_finds_an_address_by_the_secret_of_the_service(service: SharedRelay) -> None:
    shown = call(service, "why", "Alice@EXAMPLE.test")
    assert (shown.exit_code, shown.stdout.count("\n  suppressed  ")) == (0, 4)
    assert call(service, "why", "carol@example.test").exit_code == 1
    assert "records are kept for 30d." in call(service, "why", "carol@example.test").stderr


def test_forget_frees_acceptances_in_its_store(service: SharedRelay) -> None:
    assert call(service, "forget", "bob@example.test", "--dry-run").stdout == "would forget 4 acceptances\n"
    assert call(service, "forget", records(service)[0]["id"]).stdout == "forgot 2 acceptances\n"
    assert call(service, "forget", "bob@example.test").stdout == "forgot 3 acceptances\n"
    shown = call(service, "forget", "bob@example.test")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert call(service, "forget", "--all").stdout == "forgot 3 acceptances\n"


def test_a_store_in_memory_is_reached_through_the_relay_only() -> None:
    with serving("memory:") as relay:
        asyncio.run(suppress(relay, b"Subject: m\r\n\r\nx\r\n"))
        for flags in ((), ("--store", "memory:")):
            assert len(call(relay, "suppressed", *flags).stdout.splitlines()) == 1
        assert call(relay, "forget", "--all").stdout == "forgot 2 acceptances\n"
        assert asyncio.run(relay.get("/records?age=60"))[0] == 404
    shown = call(relay, "suppressed", "--store", "memory:")
    assert shown.exit_code == 1
    assert shown.stderr.endswith(
        f"error: store.url memory: is in the memory of a running relay, and none answers on admin.socket {relay.state}"
        "/admin.sock; start it, or name its socket with --set admin.socket=PATH\n"
    )
    shown = CliRunner().invoke(main, ["suppressed", "--store", "memory:"])
    assert "and admin.socket is empty; start it" in shown.stderr


def test_many_commands_at_once_are_all_answered(service: SharedRelay) -> None:
    async def ask() -> list[str]:
        async with running_relay(service.state / "admin.sock") as found:
            return [line async for line in found.lines("/records?age=3600", 60.0, 10**6, 10**7)]

    async def ask_often() -> list[list[str]]:
        return await asyncio.gather(*(ask() for _ in range(100)))

    assert {len(lines) for lines in asyncio.run(ask_often())} == {4}


# Other stores


def test_a_store_that_is_named_is_opened_directly(service: SharedRelay) -> None:
    shown = call(service, "suppressed", "--store", f"sqlite:{service.state}/other.db")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(f"error: store.url sqlite:{service.state}/other.db: No such file or directory; name")


def test_another_settings_file_means_another_relay(service: SharedRelay, tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'[store]\nurl = "sqlite:{tmp_path}/other.db"\n[admin]\nsocket = ""\n')
    assert "No such file or directory" in call(service, "suppressed", "-c", str(file)).stderr
    file.write_text(f'[admin]\nsocket = "{service.state}/admin.sock"\n')
    environment = {"RUNTIME_DIRECTORY": ""}
    assert len(call(service, "suppressed", "-c", str(file), **environment).stdout.splitlines()) == 4


@pytest.mark.parametrize("command", ["suppressed", "why 0123456789ab", "forget --all"])
def test_without_a_relay_one_remark_says_that_the_settings_count(tmp_path: Path, command: str) -> None:
    environment = {"RUNTIME_DIRECTORY": "/nowhere", "STATE_DIRECTORY": str(tmp_path)}
    shown = CliRunner().invoke(main, command.split(), env=environment)
    assert (shown.exit_code, shown.stdout) == (1, "")
    remark, error = shown.stderr.splitlines()
    assert remark == (
        "note: no relay listens on admin.socket /nowhere/admin.sock; using the settings that this shell sees"
    )
    assert error == (
        f"error: store.url sqlite:{tmp_path}/relay.db: No such file or directory; name the store of the relay by "
        "-c FILE or --store URL, and run this as a user who may read it"
    )
    assert list(tmp_path.iterdir()) == []


def test_settings_that_only_the_service_can_read_do_not_stop_a_command(
    service: SharedRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as a namespace in the file, and the URL that it belongs to in the environment of the service."""
    monkeypatch.delenv(sources.FILE_VARIABLE)
    monkeypatch.setenv("RELAY_STORE__NAMESPACE", "tube")
    shown = call(service, "suppressed")
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 4)
    shown = call(service, "suppressed", RUNTIME_DIRECTORY=str(tmp_path))
    assert shown.exit_code == 78
    assert "store.namespace is for Redis" in shown.stderr


# Relays that do not answer as they should


def test_another_version_is_named_once(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b""), answer_of(b'{"seconds": 5}')):
        shown = call(service, "suppressed", "--set", f"admin.socket={path}")
    assert shown.exit_code == 0
    assert shown.stderr.count("has version 9.9.9") == 1


@pytest.mark.parametrize("answers", [[b"{}"], [b"[]"], [b'{"number": null}']])
def test_a_wrong_number_is_reported(service: SharedRelay, answers: list[bytes]) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, *map(answer_of, answers)):
        shown = call(service, "forget", "--all", "--set", f"admin.socket={path}")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "does not answer as a relay does" in shown.stderr


async def test_records_without_an_end_are_cut(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b"", length=10**12), endless=b"x" * 65536):
        async with running_relay(path) as relay:
            with pytest.raises(AdminError, match="answers with more than 1000000 bytes"):
                [line async for line in relay.lines("/records?age=1", 10.0, 100_000, 10**6)]


async def test_records_that_break_off_are_no_full_list(service: SharedRelay) -> None:
    path = service.state / "other.sock"
    with listening(path, PROCESS, answer_of(b"{}\n", length=100), closes=True):
        async with running_relay(path) as relay:
            with pytest.raises(AdminError, match="broke off its answer; try again"):
                [line async for line in relay.lines("/records?age=1", 10.0, 100_000, 10**6)]


async def status_of(relay: SharedRelay, method: str, path: str, body: bytes = b"") -> int:
    connector = aiohttp.UnixConnector(path=str(relay.state / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.request(method, f"http://relay{path}", data=body) as answer,
    ):
        return answer.status


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff", b'{"within": null}', b"[" * 100_000, Selection().encode().encode()[:-2]]
)
async def test_wrong_requests_are_refused(service: SharedRelay, body: bytes) -> None:
    assert await status_of(service, "POST", "/forget", body) == 400
    assert await status_of(service, "POST", "/records/address", body) == 400


@pytest.mark.parametrize("age", ["", "?age=", "?age=soon", "?age=-1", "?age=nan"])
async def test_a_wrong_age_is_refused(service: SharedRelay, age: str) -> None:
    assert await status_of(service, "GET", f"/records{age}") == 400


async def test_too_large_a_request_is_refused(service: SharedRelay) -> None:
    size = 17 * 1024 * 1024
    reader, writer = await asyncio.open_unix_connection(service.state / "admin.sock")
    writer.write(b"POST /forget HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n" % size + b" " * size)
    assert (await reader.readline()).split()[1] == b"413"
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
