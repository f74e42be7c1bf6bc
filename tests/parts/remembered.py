"""What the judgement remembers of earlier messages, and how to make it forget."""

from __future__ import annotations

import importlib
import pkgutil

import relay.core

_MODULES = [importlib.import_module(f"relay.core.{found.name}") for found in pkgutil.iter_modules(relay.core.__path__)]
MEMORIES = {
    id(value): value for module in _MODULES for value in vars(module).values() if hasattr(value, "cache_clear")
}.values()


def forget() -> None:
    """Let the next message be the first one."""
    for memory in MEMORIES:
        memory.cache_clear()
