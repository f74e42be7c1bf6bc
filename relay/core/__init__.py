"""The values that all packages share: envelopes, replies, claims, outcomes. Pure: no I/O, clock, randomness or logging.

Imports no other package of the relay.
"""
