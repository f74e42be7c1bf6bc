"""MIME: parses content into header fields and a tree of parts, and decodes field values and transfer encodings.

`parse` is the entry. Everything is strict: where readers may differ, the result is None or a broken message, and raw
bytes count. The rules, the fingerprint, `relay explain` and `relay simulate` use it. It may import `judge.text`.
"""
