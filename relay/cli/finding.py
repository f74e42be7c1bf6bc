"""What one look of `relay check` gave."""

from __future__ import annotations

from dataclasses import dataclass

import click

from relay.runtime.terminal import printable


@dataclass(frozen=True)
class Finding:
    """The setting it is about, what was found, and how to mend it (empty when it is well)."""

    key: str
    text: str
    mend: str = ""

    @property
    def fails(self) -> bool:
        """Whether the relay would not work."""
        return bool(self.mend)

    @property
    def word(self) -> str:
        """Give what stands at the head of its line; all are as wide."""
        return click.style("FAIL", fg="red", bold=True) if self.mend else click.style("ok  ", fg="green")

    def __str__(self) -> str:
        # A server may have said anything.
        return f"{self.word}  {self.key}: {printable(self.text)}" + (
            f"\n      to mend: {self.mend}" if self.mend else ""
        )


class Caution(Finding):
    """The relay works, but an operator should know."""

    fails = False
    word = click.style("warn", fg="yellow")
