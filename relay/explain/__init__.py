"""What `relay explain` shows: one message taken apart, or two compared, first as data (for `--json`), then as text.

`relay.cli.explain` uses it. It may import every package below the commands, but not `simulate` or `demo`.
"""
