"""The settings in `docs/smarthosts.md` are valid. Nothing connects to a service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from parts.relay_process import run_relay

PAGE = (Path(__file__).parents[2] / "docs" / "smarthosts.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
HOSTS = (
    "smtp.gmail.com:587",
    "smtp.office365.com:587",
    "email-smtp.eu-west-1.amazonaws.com:587",
    "smtp.sendgrid.net:587",
    "smtp.eu.mailgun.org:587",
)


@pytest.mark.parametrize("example", EXAMPLES)
async def test_the_settings_of_a_service_are_valid(example: str, tmp_path: Path) -> None:
    for name in ("password", "password2"):
        example = example.replace(f'"/etc/smtp-dedup-relay/{name}"', f'"{tmp_path}/{name}"')
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text("secret\n")
    (tmp_path / "relay.toml").write_text(example, "utf-8")
    shown = await run_relay("config", "-c", str(tmp_path / "relay.toml"))
    assert (shown.status, shown.stderr) == (0, "")
    assert "smtp+starttls://" in shown.stdout


@pytest.mark.parametrize("host", HOSTS)
def test_each_service_has_an_example(host: str) -> None:
    assert any(f"@{host}" in example for example in EXAMPLES)
