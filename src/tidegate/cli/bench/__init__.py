"""``tidegate bench URI``: load for a WebSocket server, and how it answers.

    arguments         the command, and which of its options go together
    plan              what is to be done, as its processes are told
    opening           opening handshakes
    payload           the message that is sent
    process           one process that makes load
    processes         those of a round, started, watched and added up
    rounds            one round after the other, live
    results           what came out, as numbers and JSON
    report            the same for people
    server_metrics    what a server says of its own processor time and memory

The processes that make load do nothing else: the one that shows it to a terminal is another.
What must not live here: what a connection does natively (_core/load.pyx).
"""

from .arguments import command

__all__ = ["command"]
