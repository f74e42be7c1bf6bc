"""What `relay demo` does: it sends the mail of a busy AVideo through a real relay and counts what arrives upstream.

`relay.cli.demo` uses it. It may import every package below the commands, but not `explain` or `simulate`.
"""
