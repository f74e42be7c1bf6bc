"""The judge decides which rule holds for a message and computes its fingerprints. Pure: no I/O, clock or randomness.

A `Judge` applies the operator's rules to content and returns a `MessageAnalysis`. `judge_recipients` derives from it
the `Judgement`: a ruling for each recipient, and a fingerprint for each recipient that is not exempt. The transaction
and the commands `explain` and `simulate` use it. It may import `relay.core` only.
"""
