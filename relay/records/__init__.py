"""Records of suppressions: building, writing, pseudonyms, and kept copies in a Maildir.

Used by `transaction`, `service`, `monitor` and the commands. May import judge, runtime and core.
"""
