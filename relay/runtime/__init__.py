"""What a process needs to run: tasks, threads, the memory budget, and files. Knows nothing about mail.

Used by every package above `judge`. May import `relay.core` only.
"""
