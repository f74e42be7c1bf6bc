"""HTML: strips what an operator ignores, and generated Content-IDs, and takes out the style sheet of a page.

Only the fingerprint uses it. It may import the ignores from `judge.rules`, and `judge.mime`.
"""
