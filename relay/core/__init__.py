"""Judgement and words: pure, without I/O, clock, randomness or logging."""
