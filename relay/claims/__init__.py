"""Claims: which transaction may deliver a fingerprint, and what was accepted before.

`manager` is what transactions use. It keeps this process's knowledge in `local_table`; `lease_renewal`, `remote_claims`
and `write_back` keep the table and the store in step. `store_client` is the only caller of a store, behind a
`circuit_breaker`. The stores are `memory`, `sqlite` and `redis`; they share one contract (`tests/contract`) and import
neither each other nor the manager. The commands and the life cycle of a claim are in `relay.core`.
"""
