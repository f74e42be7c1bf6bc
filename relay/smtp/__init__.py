"""The SMTP server: listens, reads commands and content, and replies.

`relay.service` starts the `Listener`. The package imports `relay.transaction` and the layers below it. Read it in the
order of a message: `listener`, `protocol` (with `reader` and `path`), `session`, then `relay.transaction`.
"""
