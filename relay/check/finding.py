"""The result of one test that `relay check` makes."""

from __future__ import annotations

from dataclasses import dataclass


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
    def level(self) -> str:
        """`FAIL` if the relay would not work, else `ok`."""
        return "FAIL" if self.remedy else "ok"

    @property
    def fails(self) -> bool:
        """Whether the relay would not work."""
        return self.level == "FAIL"


class Caution(Finding):
    """The relay works, but an operator should know this."""

    level = "warn"
