"""Operators' rules and ignores: where a rule matches (`matching`), and which octets do not count (`ignores`).

Settings build the rules, the judge and the fingerprint apply them. May import `relay.judge.mime` and
`relay.judge.text`.
"""
