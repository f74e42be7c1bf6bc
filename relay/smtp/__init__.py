"""The SMTP server: listens, reads commands and content, and replies.

`relay.service` starts the `Listener`. The package imports `relay.transaction` and the layers below it. Read it in the
order of a message: `listener`, `connection` (with `reader`), `protocol` (with `path`), `session` (with `parameters`),
then `relay.transaction`. `session_table` admits clients; `auth` and `client_login` let them log in.
"""
