"""Clears the caches that the judge keeps between messages."""

from __future__ import annotations

import importlib
import pkgutil

import relay.judge

_MODULES = [
    importlib.import_module(found.name) for found in pkgutil.walk_packages(relay.judge.__path__, "relay.judge.")
]
_CACHES = {
    id(value): value for module in _MODULES for value in vars(module).values() if hasattr(value, "cache_clear")
}.values()


def clear_caches() -> None:
    """Empties all caches, so that the next message is judged like the first one."""
    for cache in _CACHES:
        cache.cache_clear()
