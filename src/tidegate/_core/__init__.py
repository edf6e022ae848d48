"""The native hot path: wire (bytes <-> frames), channel (one connection), scoreboard (counters in shared memory).

What must not live here: anything rarer than a message.
"""
