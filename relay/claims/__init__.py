"""Claims: who may deliver a fingerprint, and what has been sent before. `relay.core.claim` holds the words.

book.py table.py upkeep.py    what this process holds and knows; leases, polling, writing back
guard.py                      the only caller of a store: one round trip at a time, limits, the breaker
memory.py sqlite.py redis.py  the stores, one contract (tests/test_store_contract.py)
*_commands.py sqlite_file.py  commands as SQL and as Redis requests; the SQLite file and its schema
codec.py                      an acceptance as text
"""
