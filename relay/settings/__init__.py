"""Settings: one model for file, environment, flags, `config/relay.toml` and the reference page; rules and presets.

Used by `service` and the commands. May import judge, runtime and core.
"""

from relay.settings.loaded import Loaded
from relay.settings.model import Settings
from relay.settings.sources import load

__all__ = ["Loaded", "Settings", "load"]
