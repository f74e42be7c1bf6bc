"""The settings in force, compared with those on disk, which the relay would use after a reload or restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.settings.reload import RESTART, changed_keys

if TYPE_CHECKING:
    from relay.settings import Loaded

_MOST_NAMED = 10


def difference(in_force: Loaded, new: Loaded) -> tuple[str, str] | None:
    """Returns which settings differ, and what to do; None if none does."""
    keys = changed_keys(in_force.settings, new.settings)
    if not keys:
        return None
    where = str(new.file) if new.file else "what the relay reads them from"
    named = ", ".join(keys[:_MOST_NAMED]) + (f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else "")
    unit = "smtp-dedup-relay"
    restart = [key for key in keys if key in RESTART]
    reload = f"reload (systemctl reload {unit})" if len(restart) < len(keys) else ""
    then = f"restart (systemctl restart {unit}) for {', '.join(restart)}" if restart else ""
    return f"{where} has changed since the relay read it: {named}", ", and ".join(filter(None, (reload, then)))
