"""The claim store in one SQLite file, for the processes of one host: `store.SqliteStore`.

It may import `relay.claims.wire_form` and `relay.core`.
"""
