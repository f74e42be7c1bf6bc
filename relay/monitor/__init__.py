"""What operators see: the log, the metrics, and the health endpoints over HTTP.

Used by `service` only. May import claims, records, judge and core.
"""
