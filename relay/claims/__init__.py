"""Claims: who may deliver a fingerprint, and what has been sent before. `relay.core.claim` holds the words.

guard.py                      the only caller of a store: one round trip at a time, limits, the breaker
memory.py sqlite.py redis.py  the stores, one contract (tests/test_store_contract.py)
codec.py                      an `Original` as text
"""
