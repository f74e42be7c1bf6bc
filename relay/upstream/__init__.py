"""The upstream: SMTP over pooled connections (`smtp`), or a Maildir for trials (`maildir`).

Both implement `relay.core.delivery.Upstream`, which is all that `relay.transaction` knows of them; `relay.service`
chooses. The package imports `relay.runtime` and `relay.core`.
"""
