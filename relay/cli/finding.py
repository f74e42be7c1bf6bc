"""The result of one test that `relay check` makes."""

from __future__ import annotations

from dataclasses import dataclass

import click

from relay.runtime.terminal import printable


@dataclass(frozen=True)
class Finding:
    """What was found about one setting. It fails if there is a remedy."""

    key: str
    """The setting, such as `store.url`."""
    text: str
    remedy: str = ""
    step: str = ""
    """The step that failed, such as `TLS`, if the test has several."""

    @property
    def fails(self) -> bool:
        """Whether the relay would not work."""
        return bool(self.remedy)

    @property
    def label(self) -> str:
        """The start of the line: `ok`, `FAIL` or `warn`, padded to one width."""
        return click.style("FAIL", fg="red", bold=True) if self.remedy else click.style("ok  ", fg="green")

    def __str__(self) -> str:
        # The text may quote a server, which can send anything.
        lines = [f"{self.label}  {self.key}: {printable(self.text)}"]
        if self.remedy:
            lines.append(f"to fix: {printable(self.remedy)}")
        if self.step:
            lines.append(f"failed step: {self.step}")
        return "\n      ".join(lines)


class Caution(Finding):
    """The relay works, but an operator should know this."""

    fails = False
    label = click.style("warn", fg="yellow")
