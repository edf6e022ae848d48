"""The stacks of all threads of a process, in the log, whatever the process does.

A signal handler in C writes them, also when the interpreter is blocked. It writes to the log's descriptor, whose number
stays the same when the file is reopened.

What must not live here: which process hangs, and what follows (supervisor).
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

__all__ = ["STACKS", "show_stacks_on"]

STACKS: Final[int] = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""The signal on which a process shows its stacks: one that applications do not use, if there is one; else SIGUSR2."""


def show_stacks_on(descriptor: int) -> None:
    """Show the stacks there from now on: on `STACKS`, on SIGABRT, and when the process crashes in native code.


    Parameters:
        descriptor: of the log.
    """
    faulthandler.enable(descriptor)
    faulthandler.register(STACKS, descriptor, all_threads=True)
