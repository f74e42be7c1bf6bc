"""The trace of every message: building, writing and finding it.

`writer` collects the traces of a process and appends them to a store. The stores are `memory`, `sqlite` and `redis`.
They keep traces in segments, and `segments` finds them there. `codec` makes the line of a trace, and `names` finds the
names in it by which a message is searched. `story` and `timeline` put the copies of a mail together.

Used by `transaction`, `service` and those who show traces. May import claims, records, runtime and core: a store is on
the servers, or beside the file, of the claim store.
"""
