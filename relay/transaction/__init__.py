"""The path of one message from MAIL to its reply.

`relay.smtp.session` creates a `Transaction` for each MAIL. Read `transaction` first; it contains the steps in order.
`judging`, `sending` and `recording` do what a step needs. May import dependencies and the layers below it.
"""

from relay.transaction.transaction import Transaction

__all__ = ["Transaction"]
