"""The relay between two Postfixes: as `smtpd_proxy_filter` of the first, in front of the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts.client import RawClient
from parts.logged import wait_upstream
from parts.postfix import USERS, Postfix

if TYPE_CHECKING:
    from conftest import StartRelay


@pytest.mark.parametrize(
    ("mail", "rcpt"),
    [
        (b"", b""),
        (b" RET=HDRS ENVID=x+2By", b""),
        (b"", b" NOTIFY=FAILURE,DELAY"),
        (b" BODY=8BITMIME SIZE=100", b" NOTIFY=NEVER ORCPT=rfc822;user1@example.test"),
    ],
)
async def test_mail_with_dsn_parameters_arrives(
    start_relay: StartRelay, postfix: Postfix, mail: bytes, rcpt: bytes
) -> None:
    """Postfix offers DSN by itself, and passes the parameters to its filter unasked."""
    relay = await start_relay(upstream=postfix.url)
    await wait_upstream(relay, "up")
    with Postfix(settings=[f"smtpd_proxy_filter = 127.0.0.1:{relay.port}"]) as front:
        async with await RawClient.open(front.port) as client:
            assert b"DSN" in (await client.command(b"EHLO client.example.test")).lines
            assert (await client.command(b"MAIL FROM:<sender@example.test>" + mail)).code == 250
            assert (await client.command(b"RCPT TO:<%b>%b" % (USERS[0].encode(), rcpt))).code == 250
            assert (await client.content(b"Subject: front\r\n\r\n" + mail + rcpt + b"\r\n")).code == 250
    await postfix.wait_delivered(1)
    assert (await relay.metrics()).outcomes() == {"forwarded": 1}
