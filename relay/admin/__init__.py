"""The admin API: commands ask the running relay on a Unix socket (`admin.socket`).

`server` and what it serves run beside the service; `client` is for the commands. May import `check`, `service` and
every package below them.
"""
