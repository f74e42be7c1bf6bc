"""What `relay simulate` does: it replays an archive of mail by date through the relay's judgement.

`relay.cli.simulate` uses it. It may import every package below the commands, but not `explain` or `demo`.
"""
