"""The tests of `relay check` for a running relay: with its user, its passwords, and its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.admin.on_disk import difference
from relay.check import run
from relay.check.finding import Caution, Finding
from relay.check.upstream import TrialAddresses
from relay.core.errors import SettingsError
from relay.settings.passwords import upstream_password
from relay.settings.reload import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.settings import Loaded, Settings

_LEVELS = {"ok": Finding, "warn": Caution, "FAIL": Finding}


async def check_running(
    in_force: Loaded, load: Callable[[], Loaded], held: Mapping[str, Finding], trial: TrialAddresses
) -> run.Checked:
    """Tests the settings in force, and if those on disk differ, these too.

    `held` says of each setting where the relay listens. An error says why settings cannot be used.
    """
    first = await _check(in_force.settings, held, trial)
    findings, error = list(first.findings), first.error
    try:
        new = load()
    except SettingsError as wrong:
        return run.Checked(findings, wrong)
    if changed := difference(in_force, new):
        findings.append(Caution("settings", *changed))
        same = {
            key: finding for key, finding in held.items() if value(in_force.settings, key) == value(new.settings, key)
        }
        second = await _check(new.settings, same, trial)
        findings += [finding for finding in second.findings if finding not in first.findings]
        error = error or second.error
    return run.Checked(findings, error)


async def _check(settings: Settings, held: Mapping[str, Finding], trial: TrialAddresses) -> run.Checked:
    try:
        password = upstream_password(settings)
    except SettingsError as error:
        return run.Checked([], error)
    return await run.check(settings, password, trial, held)


def encode_checked(checked: run.Checked, warnings: tuple[str, ...]) -> dict[str, Any]:
    """Returns a JSON object. Raises what is no wrong setting."""
    if checked.error and not isinstance(checked.error, SettingsError):
        raise checked.error
    return {
        "findings": [
            {"level": one.level, "key": one.key, "text": one.text, "remedy": one.remedy, "step": one.step}
            for one in checked.findings
        ],
        "wrong_settings": str(checked.error or ""),
        "warnings": list(warnings),
    }


def decode_checked(found: Mapping[str, Any]) -> tuple[run.Checked, list[str]]:
    """Returns the findings and warnings of a JSON object. Raises `LookupError` or `TypeError`."""
    findings = [
        _LEVELS[one["level"]](*(str(one[name]) for name in ("key", "text", "remedy", "step")))
        for one in found["findings"]
    ]
    wrong = found["wrong_settings"]
    return run.Checked(findings, SettingsError(str(wrong)) if wrong else None), list(map(str, found["warnings"]))


def decode_trial(found: Mapping[str, Any]) -> TrialAddresses:
    """Returns the trial addresses of a JSON object. Raises `LookupError` or `ValueError`."""
    return TrialAddresses(*(_address(found[name]) for name in ("mail_from", "rcpt_to")))


def _address(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    # What an SMTP command may contain between < and >.
    if not text.isascii() or not text.isprintable() or set(text) & set(" <>"):
        raise ValueError("not an address")
    return text
