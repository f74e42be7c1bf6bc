"""The trace of every message: building, writing and finding it.

`writer` collects the traces of a process and appends them to a store. The stores are `memory`, `sqlite` and `redis`.
They keep traces in segments, and `segments` finds them there; `terms` are what an index holds of a trace, and `codec`
its text. Used by `transaction`, `service` and those who show traces. May import claims, records, runtime and core: a
store is on the servers, or beside the file, of the claim store.
"""
