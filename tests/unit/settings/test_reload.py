"""Which settings a running relay can change, and what is in force after a reload."""

from __future__ import annotations

import pytest

from relay.core.errors import SettingsError
from relay.settings.model import KEYS, TABLES
from relay.settings.reload import RELOAD, RESTART, changed_keys, in_force_after
from relay.settings.sources import from_values


def test_each_setting_is_in_one_of_the_two_sets() -> None:
    # A new setting: put it into RELOAD and into tests/unit/service/test_reload.py, or into RESTART.
    assert {*KEYS, *TABLES} == RELOAD | RESTART
    assert not RELOAD & RESTART


def test_what_needs_a_restart_stays_with_its_source() -> None:
    running = from_values({"listen.address": ("127.0.0.1:1", "flag --listen"), "dedup.window": ("5m", "file a")})
    new = from_values({"listen.address": ("127.0.0.1:2", "file b"), "store.timeout": ("2s", "file b")})
    in_force = in_force_after(running, new)
    assert str(in_force.settings.listen.address) == "127.0.0.1:1"
    assert in_force.provenance["listen.address"] == "flag --listen"
    assert in_force.provenance["dedup.window"] == "default"
    assert changed_keys(running.settings, in_force.settings) == ["dedup.window"]
    assert changed_keys(in_force.settings, new.settings) == ["listen.address", "store.timeout"]


def test_values_that_do_not_go_together_with_those_that_stay_are_refused() -> None:
    running = from_values({"listen.address": ("127.0.0.1:2525", "file")})
    moved = {"listen.address": ("127.0.0.1:2526", "file"), "upstream.url": ("smtp://127.0.0.1:2525", "file")}
    with pytest.raises(SettingsError, match="mail would loop"):
        in_force_after(running, from_values(moved))


def test_equal_rules_are_no_change() -> None:
    def rules(window: str) -> list[dict[str, object]]:
        return [{"name": "x", "subject": "(?i)invoice", "header": {"X-A": "b+"}, "action": "dedupe", "window": window}]

    before, same, other = (from_values({"rules": (rules(window), "file")}).settings for window in ("1m", "1m", "2m"))
    assert changed_keys(before, same) == []
    assert changed_keys(before, other) == ["rules"]
