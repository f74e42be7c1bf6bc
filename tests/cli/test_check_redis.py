"""`relay check` with Redis servers: those that refuse, and those that answer but may lose claims."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from parts.check_command import UPSTREAM, check, holding
from parts.peer import ScriptedPeer
from parts.ports import HOST, free_port
from parts.redis_cluster import shared_cluster
from parts.redis_sentinel import SERVICE, shared_sentinels
from parts.redis_server import RedisServer, redis_store

from relay.check.redis_servers import findings
from relay.claims.redis.server_info import ServerInfo
from relay.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from parts.certificates import Authority
    from parts.relay_process import Finished


@pytest.mark.parametrize(
    ("url", "password", "remedy"),
    [
        ("redis+cluster://{}", "", "it is no cluster: write redis://HOST in store.url"),
        ("redis+sentinel://{}/mymaster", "", "it is no sentinel: name the sentinels in store.url, or write"),
        ("redis://:x@{}", "", "it has no password: remove the password from store.url"),
        ("redis://{}", "right", "write its password in store.url: redis://:PASSWORD@HOST"),
        ("redis://:wrong@{}", "right", "write the right password (and user) in store.url"),
        ("redis://{}/99", "", "correct the number of the database in store.url"),
    ],
)
def test_the_remedy_fits_the_error_of_a_redis(redis_server: RedisServer, url: str, password: str, remedy: str) -> None:
    given = url.format(f"{HOST}:{redis_server.port}")
    free = ("--listen", f"{HOST}:0", "--http", f"{HOST}:0", "--upstream", UPSTREAM)
    with redis_server.client() as client:
        client.execute_command("CONFIG", "SET", "requirepass", password)
        try:
            result = CliRunner().invoke(main, ["check", *free], env={"RELAY_STORE__URL": given})
            listing = CliRunner().invoke(main, ["suppressed"], env={"RELAY_STORE__URL": given})
        finally:
            client.execute_command("CONFIG", "SET", "requirepass", "")
    assert (result.exit_code, listing.exit_code) == (1, 1)
    assert f"\n      to fix: {remedy}" in result.stdout
    assert f"; {remedy}" in listing.stderr


async def refused(url: str, *flags: str) -> tuple[str, str, str]:
    """Check a Redis that is no good. Give what was found, the remedy and the step."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:  # a flag must not contain a password
        file.write(f'[store]\nurl = "{url}"\n')
        file.flush()
        result = await check("-c", file.name, "--upstream", UPSTREAM, *flags)
    assert result.status == 1
    lines = result.stdout.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("FAIL  store.url: ")]
    remedy, step = (line.strip() for line in lines[number + 1 : number + 3])
    return lines[number], remedy.removeprefix("to fix: "), step.removeprefix("failed step: ")


async def test_a_full_redis_fails() -> None:
    with RedisServer(options={"maxmemory": "1mb", "maxmemory-policy": "noeviction"}) as server:
        found, remedy, step = await refused(server.url)
    assert "command not allowed when used memory > 'maxmemory'" in found
    assert remedy.startswith("it is full: raise maxmemory in its redis.conf")
    assert step == "write"


async def test_a_replica_fails(redis_server: RedisServer) -> None:
    with RedisServer(options={"replicaof": f"{HOST} {redis_server.port}"}) as replica:
        found, remedy, step = await refused(replica.url)
    assert "read only replica" in found
    assert (remedy, step) == ("it is a replica: name the master in store.url", "write")


async def test_a_redis_that_may_not_write_fails(persisting: RedisServer) -> None:
    with persisting.client() as client:
        client.execute_command("CONFIG", "SET", "min-replicas-to-write", "1")
    found, remedy, step = await refused(persisting.url)
    assert "Not enough good replicas" in found
    assert (remedy[: len("it has too few replicas")], step) == ("it has too few replicas", "write")


async def test_a_redis_in_protected_mode_is_quoted() -> None:
    """It says why and closes, before the library can read that."""
    denied = b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n"
    async with holding(denied) as address:
        found, remedy, step = await refused(f"redis://{address}")
    assert "DENIED Redis is running in protected mode" in found
    assert remedy.startswith("let it listen for this host: set a password there (requirepass)")
    assert step == "greeting"


async def test_a_server_that_is_no_redis_is_named() -> None:
    async with ScriptedPeer() as peer:
        found, remedy, step = await refused(f"redis://{HOST}:{peer.port}")
    assert "answers, but not as Redis does" in found
    assert (remedy, step) == ("name the port of a Redis server in store.url", "first command")


async def test_a_missing_socket_is_no_matter_of_tcp(tmp_path: Path) -> None:
    _, remedy, step = await refused(f"unix://{tmp_path}/none.sock")
    assert (remedy, step) == ("start Redis, or correct the path in store.url", "connection")


@pytest.mark.parametrize(
    ("login", "acl", "words", "remedy", "step"),
    [
        ("", ("default", "off"), "Authentication required", "write its password in store.url", "login"),
        ("u:wrong@", ("u", "on", ">right", "~*", "+@all"), "invalid username-password", "write the right", "login"),
        ("u:p@", ("u", "on", ">p", "~*", "+@all", "-set"), "permission", "allow the user", "command"),
        # Missing, it would make two relays deliver twice: only a held key shows it.
        ("u:p@", ("u", "on", ">p", "~*", "+@all", "-pttl"), "trial that reads a held key", "allow the user", "command"),
        (
            "u:p@",
            ("u", "on", ">p", "~*", "+@all", "-pexpireat"),
            "trial that renews a claim",
            "allow the user",
            "command",
        ),
        ("u:p@", ("u", "on", ">p", "~*", "+@all", "-del"), "trial that releases a claim", "allow the user", "command"),
        ("u:p@", ("u", "on", ">p", "~*", "+@all", "-rpush"), "this user may not run RPUSH on", "allow th", "command"),
    ],
)
async def test_a_user_without_the_rights_fails(
    login: str, acl: tuple[str, ...], words: str, remedy: str, step: str
) -> None:
    with RedisServer() as server, server.client() as client:
        client.execute_command("ACL", "SETUSER", *acl)
        found, fix, failed_step = await refused(f"redis://{login}{HOST}:{server.port}")
    assert words in found
    assert (fix[: len(remedy)], failed_step) == (remedy, step)


async def test_the_trial_leaves_no_key(redis_server: RedisServer) -> None:
    assert (await check("--upstream", UPSTREAM, "--store", redis_server.url)).status == 0
    assert set(redis_server.keys()) == {"smtp-dedup:identity"}


async def test_the_wrong_scheme_for_a_redis_is_named(authority: Authority, redis_server: RedisServer) -> None:
    _, remedy, step = await refused(f"rediss://{HOST}:{redis_server.port}")
    assert (remedy, step) == ("the port does not use TLS: write redis:// in store.url", "TLS")
    certificate, port = str(authority.issue()), str(free_port())
    options = {"tls-port": port, "tls-cert-file": certificate, "tls-key-file": certificate, "tls-auth-clients": "no"}
    with RedisServer(options=options):
        _, remedy, step = await refused(f"redis://{HOST}:{port}")
        assert (remedy, step) == ("the port expects TLS: write rediss:// in store.url", "TLS")
        found, remedy, step = await refused(f"rediss://{HOST}:{port}")
        assert "certificate verify failed" in found
        assert remedy.endswith("in store.url: rediss://HOST?ssl_ca_certs=FILE")
        assert step == "TLS"


async def test_a_cluster_behind_a_plain_url_is_recognised() -> None:
    cluster = shared_cluster()
    cluster.ready()
    for node in cluster.nodes:  # also the one that takes what is listing for first
        result = await check("--upstream", UPSTREAM, "--store", f"redis://{HOST}:{node.port}")
        assert result.status == 1
        assert "\n      to fix: write redis+cluster://HOST:PORT in store.url\n" in result.stdout


async def test_a_cluster_without_slots_is_reported() -> None:
    # The default port of the cluster bus, 10,000 above, may be in use by a connection.
    with RedisServer(options={"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
        result = await check("--upstream", UPSTREAM, "--store", f"redis+cluster://{HOST}:{server.port}")
    assert "\n      to fix: assign its slots (redis-cli --cluster fix HOST:PORT), or name another" in result.stdout


async def warned(server: RedisServer, *commands: tuple[str, ...]) -> Finished:
    """Check a server after these commands."""
    with server.client() as client:
        for command in commands:
            client.execute_command(*command)
    result = await check("--upstream", UPSTREAM, "--store", server.url)
    assert "\x1b" not in result.stdout
    assert f"ok    store.url: {server.url} answers\n" in result.stdout
    return result


@pytest.fixture
def persisting() -> Iterator[RedisServer]:
    with RedisServer(persist=True) as server:
        yield server


async def test_a_redis_that_persists_and_does_not_evict_passes(persisting: RedisServer) -> None:
    result = await warned(persisting)
    assert result.status == 0
    assert "warn" not in result.stdout
    with persisting.client() as client:
        client.execute_command("CONFIG", "SET", "appendonly", "no")
    assert "persists nothing" in (await warned(persisting)).stdout
    assert "warn" not in (await warned(persisting, ("CONFIG", "SET", "save", "60 1"))).stdout


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_evicts_is_a_warning(persisting: RedisServer, policy: str) -> None:
    result = await warned(persisting, ("CONFIG", "SET", "maxmemory-policy", policy))
    assert result.status == 0
    assert f'warn  store.url: {HOST}:{persisting.port} has maxmemory-policy "{policy}"' in result.stdout
    assert '\n      to fix: write "maxmemory-policy noeviction" in its redis.conf, or run CONFIG SET ' in result.stdout
    assert ("all keys of the relay have an expiry" in result.stdout) == (policy == "volatile-ttl")


async def test_a_redis_that_persists_nothing_is_a_warning(redis_server: RedisServer) -> None:
    result = await warned(redis_server)
    assert result.status == 0
    assert f"warn  store.url: {HOST}:{redis_server.port} persists nothing: " in result.stdout
    assert '\n      to fix: write "appendonly yes" in its redis.conf, or run CONFIG SET ' in result.stdout


async def test_a_redis_that_hides_its_config_is_a_warning(persisting: RedisServer) -> None:
    result = await warned(persisting, ("ACL", "SETUSER", "default", "-config"))
    assert result.status == 0
    assert "does not let this user read its CONFIG; whether it evicts or persists is not known\n" in result.stdout
    assert result.stdout.count("warn") == 1


async def test_a_cluster_without_one_node_still_passes() -> None:
    cluster = shared_cluster()
    cluster.ready()
    result = await check("--upstream", UPSTREAM, "--store", cluster.url)
    assert result.stdout.count("persists nothing") == 3
    gone_node = next(node for node in cluster.nodes if node is not cluster.node_of("smtp-dedup:identity"))
    gone_node.kill()
    result = await check("--upstream", UPSTREAM, "--store", cluster.url)
    assert result.status == 0
    gone = f"{HOST}:{gone_node.port}"
    assert (
        f"warn  store.url: redis at {gone}: connection refused: "
        "mail whose claims belong there is forwarded without them" in result.stdout
    )


async def test_sentinels_are_asked_for_the_master() -> None:
    sentinels = shared_sentinels()
    sentinels.ready()
    result = await check("--upstream", UPSTREAM, "--store", sentinels.url)
    assert result.status == 0
    assert f"warn  store.url: {HOST}:{sentinels.master().port} persists nothing" in result.stdout
    result = await check("--upstream", UPSTREAM, "--store", sentinels.url.replace(SERVICE, "nobody"))
    assert result.status == 1
    assert 'the sentinels know no service "nobody"\n      to fix: correct the name of the service, ' in result.stdout


async def test_a_wrong_clock_is_a_warning(persisting: RedisServer) -> None:
    store = redis_store(persisting.url)
    for wrong, words in ((-5.0, "s ahead of this host's"), (5.0, "s behind this host's")):
        [warning] = findings(await store.survey(wall=lambda off=wrong: time.time() + off))
        assert not warning.fails
        assert warning.text.startswith(f"the clock of {HOST}:{persisting.port} is ")
        assert warning.text.endswith(words)
    assert list(findings(await store.survey(wall=lambda: time.time() + 1.5))) == []
    await store.close()


def test_clocks_that_differ_are_a_warning() -> None:
    def server(name: str, ahead: float) -> ServerInfo:
        return ServerInfo(name, ahead=ahead, version=(7, 0), eviction_policy="noeviction", persists=True)

    [warning] = findings([server("h:1", 1.2), server("h:2", -1.3), server("h:3", 0.0)])
    assert warning.text.startswith("the clock of h:1 is 2.5 s ahead of that of h:2: windows change")
    assert list(findings([server("h:1", 1.0), server("h:2", -0.9)])) == []


def test_a_redis_that_is_too_old_fails() -> None:
    for version, fails in (((6, 0, 16), True), ((6, 2), False), ((7, 2, 4), False)):
        found = list(findings([ServerInfo("h:1", "", 0.0, version, "noeviction", persists=True)]))
        assert [finding.fails for finding in found] == [True] * fails
    [failure] = findings([ServerInfo("h:1", "", 0.0, (6, 0, 16), "noeviction", persists=True)])
    assert failure.text == "h:1 is Redis 6.0.16, which cannot keep claims"
