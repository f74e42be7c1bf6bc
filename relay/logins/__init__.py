"""The users file: names with hashed passwords, how it is read, changed and verified.

Used by `service` for logins of SMTP clients and by `relay user`. The package imports `relay.runtime` and `relay.core`.
"""
