"""What the judgement remembers of earlier messages, and how to make it forget."""

from __future__ import annotations

import importlib
import pkgutil

import relay.judge

_MODULES = [
    importlib.import_module(found.name) for found in pkgutil.walk_packages(relay.judge.__path__, "relay.judge.")
]
MEMORIES = {
    id(value): value for module in _MODULES for value in vars(module).values() if hasattr(value, "cache_clear")
}.values()


def forget() -> None:
    """Let the next message be the first one."""
    for memory in MEMORIES:
        memory.cache_clear()
