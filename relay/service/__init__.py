"""Builds a relay from its settings and runs it. The only package that knows the concrete classes.

Used by the commands. May import every package below: settings, smtp, monitor, transaction, claims, upstream, records.
"""

from relay.service.build import build_pseudonyms
from relay.service.build_stores import build_store
from relay.service.build_upstream import build_upstream, plan_upstream
from relay.service.run import serve
from relay.service.service import Service
from relay.service.signals import ignore_other_signals

__all__ = [
    "Service",
    "build_pseudonyms",
    "build_store",
    "build_upstream",
    "ignore_other_signals",
    "plan_upstream",
    "serve",
]
