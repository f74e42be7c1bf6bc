"""Text: decodes octets from their charset and normalises white space and Unicode, strictly.

The MIME parsers, the fingerprint and `relay explain` use it. It imports no other package of the relay.
"""
