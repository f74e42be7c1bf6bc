"""Tests whether a relay with given settings would work here and now: the work of `relay check`.

Used by the commands and by the admin API, so that the running service tests with its own user and passwords. May import
`service` and every package below it.
"""
