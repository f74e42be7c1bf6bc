"""A Postfix that does not offer an extension: what clients are offered, and what becomes of mail that needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient, send
from parts.logged import wait_upstream
from parts.postfix import USERS, Postfix

if TYPE_CHECKING:
    from conftest import StartRelay

SENDER, ONE = b"s@example.test", USERS[0].encode()
ALL = {b"8BITMIME", b"SMTPUTF8", b"DSN", b"ENHANCEDSTATUSCODES", b"PIPELINING", b"SIZE"}
OWN = {b"PIPELINING", b"SIZE"}
"""What the relay offers by itself."""
ASCII = b"Subject: %b\r\n\r\nhello\r\n"
EIGHT_BIT = b"Subject: %b\r\n\r\nhell\xc3\xb6\r\n"
UTF8 = b"Subject: %b \xc3\xb6\r\n\r\nhello\r\n"


@pytest.mark.parametrize("without", sorted(ALL))
async def test_a_postfix_without_an_extension(start_relay: StartRelay, without: bytes) -> None:
    with Postfix(settings=[f"smtpd_discard_ehlo_keywords = {without.decode()}"]) as postfix:
        relay = await start_relay(upstream=postfix.url)
        await wait_upstream(relay, "up")
        async with await RawClient.open(relay.port) as client:
            lines = (await client.command(b"EHLO me")).lines[1:]
            offered = {line.partition(b" ")[0] for line in lines} & ALL
            assert offered == ALL - {without} | OWN
            assert b"SIZE %d" % (52428800 if without == b"SIZE" else 10240000) in lines
        refusals = 0
        for name, parameters, content, needs in [
            (b"plain", b"", ASCII, b""),
            (b"not declared", b"", EIGHT_BIT, b""),
            (b"needless", b"BODY=8BITMIME SMTPUTF8", ASCII, b""),
            (b"8-bit", b"BODY=8BITMIME", EIGHT_BIT, b"8BITMIME"),
            (b"header", b"SMTPUTF8 BODY=8BITMIME", UTF8, b"SMTPUTF8"),
            (b"notify", b"RET=HDRS ENVID=x", ASCII, b""),
        ]:
            sent = await send(relay.port, SENDER, [ONE], content % name, parameters=parameters)
            is_refused = needs == without or (name == b"header" and without == b"8BITMIME")
            assert sent.final.code == (554 if is_refused else 250), (name, sent)
            refusals += is_refused
        # Each message that was not refused is delivered once.
        await postfix.wait_delivered(6 - refusals)
        assert postfix.deliveries() == {USERS[0]: 6 - refusals}
