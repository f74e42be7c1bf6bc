"""The fingerprint: decodes a message, normalises it, and hashes the normal form with a recipient.

`header` decides which header fields count, `decoded` decodes, `normal_form` decides what is hashed, `digest` hashes,
`sequence` names the mails of one sender to one recipient. The judge uses it. May import the packages `html`, `rules`,
`mime` and `text` of the judge.
"""
