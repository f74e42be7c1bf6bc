"""Parts of a relay, as its settings describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.service import build_pseudonyms
from relay.settings.sources import load

if TYPE_CHECKING:
    from pathlib import Path


def test_traces_from_before_record_addresses_was_switched_are_found_and_compared(tmp_path: Path) -> None:
    store = {"store.url": f"sqlite:{tmp_path}/relay.db"}
    hashed, plain = (
        build_pseudonyms(load(None, store | {"record.addresses": written}, {}).settings)
        for written in ("false", "true")
    )
    names = {"ada@example.org", hashed("ada@example.org")}
    assert len(names) == 2
    assert plain("ada@example.org") == "ada@example.org"
    assert plain.find("Ada@Example.org") == hashed.find("Ada@Example.org") == names
    assert plain.digest(b"123456") == hashed.digest(b"123456")
