"""An SMTP proxy that forwards every message once per recipient and suppresses its repeats."""

__version__ = "0.2.0"
