"""The events of the log: their constant texts, levels and fields, and what an admin does about each.

All packages log these and nothing else: `EVENT.log(field=value)`. Imports no other package of the relay.
"""
