"""The settings: one model that yields file, environment, flags, `config/relay.toml` and the reference page."""

from relay.settings.model import Settings
from relay.settings.sources import Loaded, load

__all__ = ["Loaded", "Settings", "load"]
