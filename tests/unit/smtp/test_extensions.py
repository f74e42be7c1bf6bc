"""Extensions towards an upstream that offers them, and towards one that does not (RFC 3461, 6152, 6531)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts import dialog_servers as servers
from parts.client import RawClient, send
from parts.peer import ScriptedPeer
from parts.peer_session import EXTENSIONS
from parts.ports import HOST, free_port
from parts.relay_process import RelayProcess
from parts.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence

SENDER, ONE = b"sender@example.test", b"one@example.test"
UTF8_SENDER, UTF8_ONE = b"s\xc3\xa4nder@example.test", b"\xc3\xb6ne@example.test"
ASCII_MAIL = b"Subject: x\r\n\r\nhello\r\n"
EIGHT_BIT_MAIL = b"Subject: x\r\n\r\nhell\xc3\xb6\r\n"
UTF8_MAIL = b"Subject: \xc3\xbc\r\n\r\nhello\r\n"
NONE: Sequence[bytes] = [b"PIPELINING", b"SIZE 1000"]


async def offered(extensions: Sequence[bytes]) -> set[bytes]:
    async with ScriptedPeer(extensions=extensions) as peer, servers.relay(peer.url) as relay:
        client = await RawClient.open(relay.port)
        async with client:
            return {line.partition(b" ")[0] for line in (await client.command(b"EHLO me")).lines}


async def test_the_relay_offers_what_the_upstream_offers() -> None:
    honest = {b"8BITMIME", b"SMTPUTF8", b"DSN", b"ENHANCEDSTATUSCODES"}
    assert await offered([*EXTENSIONS, b"DSN"]) >= honest
    assert not await offered(NONE) & honest
    assert await offered([b"DSN"]) & honest == {b"DSN"}


async def test_dsn_parameters_are_passed_on_to_an_upstream_that_offers_dsn() -> None:
    async with ScriptedPeer(extensions=[*EXTENSIONS, b"DSN"]) as peer, servers.relay(peer.url) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            mail = b"MAIL FROM:<%b> RET=HDRS ENVID=x+2By AUTH=<>" % SENDER
            rcpt = b"RCPT TO:<%b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;ONE+2B@example.test" % ONE
            assert (await client.command(mail)).code == 250
            assert (await client.command(rcpt)).code == 250
            assert (await client.command(b"RCPT TO:<two@example.test>")).code == 250
            assert (await client.content(ASCII_MAIL)).code == 250
        assert peer.commands(b"MAIL FROM:<s") == [b"MAIL FROM:<%b> RET=HDRS ENVID=x+2By" % SENDER]
        assert peer.commands(b"RCPT") == [rcpt, b"RCPT TO:<two@example.test>"]


async def test_dsn_parameters_survive_a_narrower_transaction() -> None:
    async with ScriptedPeer(extensions=[*EXTENSIONS, b"DSN"]) as peer, servers.relay(peer.url) as relay:
        assert (await send(relay.port, SENDER, [ONE], ASCII_MAIL)).ok
        async with await RawClient.open(relay.port) as client:
            await client.begin(SENDER, ONE)
            assert (await client.command(b"RCPT TO:<two@example.test> NOTIFY=NEVER")).code == 250
            assert (await client.content(ASCII_MAIL)).code == 250
        assert peer.commands(b"RCPT TO:<two") == [b"RCPT TO:<two@example.test> NOTIFY=NEVER"] * 2
        assert peer.accepted[-1].recipients == (b"two@example.test",)


async def test_dsn_parameters_are_dropped_where_dsn_is_not_offered() -> None:
    async with ScriptedPeer() as peer, servers.relay(peer.url) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO me")
            await client.command(b"MAIL FROM:<%b> RET=FULL ENVID=x" % SENDER)
            await client.command(b"RCPT TO:<%b> NOTIFY=NEVER ORCPT=rfc822;x@y" % ONE)
            assert (await client.content(ASCII_MAIL)).code == 250
        assert peer.accepted[0].parameters == ()
        assert peer.commands(b"RCPT") == [b"RCPT TO:<%b>" % ONE]


@pytest.mark.parametrize(
    ("parameters", "sender", "recipient", "content", "reply"),
    [
        (b"BODY=8BITMIME", SENDER, ONE, EIGHT_BIT_MAIL, b"5.6.3 "),
        (b"BODY=8BITMIME", SENDER, ONE, ASCII_MAIL, b""),
        (b"BODY=7BIT", SENDER, ONE, EIGHT_BIT_MAIL, b""),
        (b"", SENDER, ONE, EIGHT_BIT_MAIL, b""),
        (b"SMTPUTF8", SENDER, ONE, UTF8_MAIL, b"5.6.9 "),
        (b"SMTPUTF8", SENDER, ONE, ASCII_MAIL, b""),
        (b"", SENDER, ONE, UTF8_MAIL, b""),
        (b"SMTPUTF8", UTF8_SENDER, ONE, ASCII_MAIL, b"5.6.7 "),
        (b"SMTPUTF8", SENDER, UTF8_ONE, ASCII_MAIL, b"5.6.7 "),
        (b"", UTF8_SENDER, UTF8_ONE, ASCII_MAIL, b""),
    ],
)
async def test_what_needs_an_extension_is_refused_without_it(
    parameters: bytes, sender: bytes, recipient: bytes, content: bytes, reply: bytes
) -> None:
    """A declaration without need is dropped, and what the client did not declare passes."""
    async with ScriptedPeer(extensions=NONE) as peer, servers.relay(peer.url) as relay:
        sent = await send(relay.port, sender, [recipient], content, parameters=parameters)
        assert sent.ok != bool(reply)
        if reply:
            assert sent.final.code // 100 == 5
            assert sent.final.text.startswith(reply)
            assert not peer.received
        else:
            assert [message.content for message in peer.accepted] == [content]
    async with ScriptedPeer() as peer, servers.relay(peer.url) as relay:
        assert (await send(relay.port, sender, [recipient], content, parameters=parameters)).ok
        assert [message.parameters for message in peer.accepted] == [(parameters,) if parameters else ()]


async def test_an_ascii_recipient_beside_a_refused_one_receives_the_message() -> None:
    async with ScriptedPeer(extensions=NONE) as peer, servers.relay(peer.url) as relay:
        sent = await send(relay.port, SENDER, [UTF8_ONE, ONE], ASCII_MAIL, parameters=b"SMTPUTF8")
        assert [answer.code for answer in sent.rcpt] == [553, 250]
        assert sent.ok
        assert peer.copies() == {ONE: 1}


async def test_a_fallback_without_the_extension_defers() -> None:
    """The preferred upstream is away, and may offer the extension."""
    async with ScriptedPeer() as preferred, ScriptedPeer(extensions=NONE) as fallback:
        await preferred.stop()
        async with servers.relay(preferred.url, {"upstream.fallback_urls": [fallback.url]}) as relay:
            sent = await send(relay.port, SENDER, [ONE], EIGHT_BIT_MAIL, parameters=b"BODY=8BITMIME")
            assert sent.final.code == 451
            assert sent.final.text.startswith(b"4.6.3 ")
            sent = await send(relay.port, SENDER, [UTF8_ONE], ASCII_MAIL, parameters=b"SMTPUTF8")
            assert sent.final.code == 451
            assert sent.final.text.startswith(b"4.6.7 ")
        assert not fallback.received


async def test_the_original_client_is_in_the_received_field(peer: ScriptedPeer) -> None:
    async with servers.relay(peer.url, {"upstream.received_field": True}) as relay:
        async with await RawClient.open(relay.port) as client:
            await client.command(b"EHLO front")
            await client.command(b"XFORWARD ADDR=192.0.2.7 HELO=spike")
            for _ in range(2):
                await client.command(b"MAIL FROM:<%b>" % SENDER)
                await client.command(b"RCPT TO:<%b>" % ONE)
                assert (await client.content(b"")).code == 250
                await client.command(b"XFORWARD ADDR=[UNAVAILABLE]")
        assert peer.accepted[0].content.startswith(b"Received: from spike ([192.0.2.7])\r\n")


async def test_a_message_size_of_zero_leaves_the_limit_to_the_upstream() -> None:
    settings = {"limits.message_size": "0"}
    for size, expected in ((b"SIZE 2000", b"SIZE 2000"), (b"SIZE", b"SIZE 0")):
        async with ScriptedPeer(extensions=[size]) as peer, servers.relay(peer.url, settings) as relay:
            async with await RawClient.open(relay.port) as client:
                assert expected in (await client.command(b"EHLO me")).lines
            assert (await send(relay.port, SENDER, [ONE], b"x" * 1500)).ok
            large = await send(relay.port, SENDER, [ONE], b"x" * 2500)
            assert large.final.code == (552 if expected == b"SIZE 2000" else 250)


# What is offered


async def names(port: int) -> set[bytes]:
    """Returns the extensions that a client is offered, SIZE with its value."""
    async with await RawClient.open(port) as client:
        lines = (await client.command(b"EHLO me")).lines[1:]
    return {line if line.startswith(b"SIZE") else line.partition(b" ")[0] for line in lines}


async def test_before_the_first_contact_only_the_relays_own_extensions_are_offered() -> None:
    async with RelayProcess(upstream=f"smtp://{HOST}:{free_port()}", store="memory:") as relay:
        assert await names(relay.port) == {b"PIPELINING", b"SIZE 52428800", b"XFORWARD"}


async def test_with_several_upstreams_the_common_extensions_are_offered_from_the_start() -> None:
    """The fallback is asked once, without a login and without a transaction."""
    theirs = [b"SIZE 2000", b"8BITMIME", b"DSN"]
    async with ScriptedPeer(extensions=[*EXTENSIONS, b"DSN"]) as preferred, ScriptedPeer(extensions=theirs) as fallback:
        fallback.credentials = (b"anna", b"s3cret")
        settings = {
            "upstream.fallback_urls": [fallback.url.replace("//", "//anna@")],
            "upstream.password": "s3cret",
        }
        async with servers.relay(preferred.url, settings) as relay:
            common = {b"PIPELINING", b"SIZE 2000", b"8BITMIME", b"DSN", b"XFORWARD"}
            await until(lambda: relay.service.upstream.size_limit() == 2000, "the fallback's EHLO")
            assert await names(relay.port) == common
        [session] = fallback.sessions
        assert [command.split()[0] for command in session.commands] in ([b"EHLO"], [b"EHLO", b"QUIT"])


async def test_an_upstream_that_offers_less_after_a_reconnect_defers_those_who_were_offered_more() -> None:
    """A retry sees what is offered now, and need not declare what does not work. It gets the verdict."""
    async with ScriptedPeer() as peer, servers.relay(peer.url) as relay, await RawClient.open(relay.port) as client:
        assert b"8BITMIME" in (await client.command(b"EHLO me")).lines
        peer.extensions = tuple(NONE)
        peer.hang_up()
        for mail, path, content, text in [
            (b"BODY=8BITMIME", ONE, EIGHT_BIT_MAIL, b"4.6.3 "),
            (b"SMTPUTF8", ONE, UTF8_MAIL, b"4.6.9 "),
            (b"SMTPUTF8", UTF8_ONE, ASCII_MAIL, b"4.6.7 "),
        ]:
            assert (await client.command(b"MAIL FROM:<%b> %b" % (SENDER, mail))).code == 250
            answer = await client.command(b"RCPT TO:<%b>" % path)
            if path == ONE:
                assert answer.code == 250
                answer = await client.content(content)
            assert answer.code == 451
            assert answer.text.startswith(text)
            await client.command(b"RSET")
        assert await names(relay.port) == {b"PIPELINING", b"SIZE 1000", b"XFORWARD"}
        sent = await send(relay.port, SENDER, [ONE], EIGHT_BIT_MAIL, parameters=b"BODY=8BITMIME")
        assert sent.final.code == 554
        # 8-bit content that nobody declared passes, as AVideo sends it.
        assert (await send(relay.port, SENDER, [ONE], EIGHT_BIT_MAIL)).ok
    assert [message.content for message in peer.accepted] == [EIGHT_BIT_MAIL]


async def test_a_fallback_with_a_smaller_size_defers() -> None:
    """The preferred upstream is away, and takes such messages."""
    async with ScriptedPeer() as preferred, ScriptedPeer(extensions=[b"SIZE 2000"]) as fallback:
        await preferred.stop()
        settings = {"upstream.fallback_urls": [fallback.url]}
        async with servers.relay(preferred.url, settings) as relay:
            large = await send(relay.port, SENDER, [ONE], b"x" * 3000)
            assert large.final.code == 451
            assert large.final.text.startswith(b"4.3.4 ")
            assert (await send(relay.port, SENDER, [ONE], b"x" * 1500)).ok
        assert [len(message.content) for message in fallback.received] == [1502]


@pytest.mark.parametrize("users", [{}, {b"anna": b"s3cret"}])
async def test_a_login_that_is_passed_through_is_offered_if_the_upstream_offers_it(users: dict[bytes, bytes]) -> None:
    async with ScriptedPeer() as peer:
        peer.users = users
        async with servers.relay(peer.url, {"auth.mode": "passthrough"}) as relay:
            assert (b"AUTH" in await names(relay.port)) == bool(users)


async def test_a_login_is_offered_before_the_first_contact() -> None:
    """It waits for the upstream for as long as a message does."""
    upstream = f"smtp://{HOST}:{free_port()}"
    async with RelayProcess(upstream=upstream, store="memory:", settings={"auth.mode": "passthrough"}) as relay:
        assert b"AUTH" in await names(relay.port)


# Lines


async def test_a_line_of_content_may_be_as_long_as_a_message(peer: ScriptedPeer) -> None:
    """Postfix folds at 2,048 octets (line_length_limit) and aiosmtpd refuses 1,002. The relay does neither."""
    line = b"y" * 5_000_000
    content = b"Subject: x\r\nX-Long: " + b"z" * 100_000 + b"\r\n\r\n" + line + b"\r\n"
    async with servers.relay(peer.url) as relay:
        assert (await send(relay.port, SENDER, [ONE], content)).ok
    [message] = peer.accepted
    assert message.content == content
