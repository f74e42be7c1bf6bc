"""A Postfix in front of the relay (`smtpd_proxy_filter`) and one behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faults.scenario import scenario

if TYPE_CHECKING:
    from faults.run import Run

GROUP = "Postfix on both sides"


@scenario(
    "a Postfix in front passes on DSN parameters and XFORWARD, and one behind accepts them",
    group=GROUP,
    hears="250, in the words of the Postfix behind; never 555",
    sees="nothing",
    upstream="two postfixes",
    settings={"upstream.reply_timeout": "60s", "upstream.dot_timeout": "60s"},
)
async def dsn(run: Run) -> None:
    run.clients.dsn = True
    async with run.load(copies=2, repeats=1):
        pass
    refused = [attempt for attempt in run.history.attempts.values() if not attempt.promised]
    if refused:
        run.complain(f"{len(refused)} attempts were refused, such as: {refused[0].code} {refused[0].text}")
