"""Where a process is, in the log: the stacks of all its threads, whatever it does.

They are written by a signal handler in C, so that they come from a process whose interpreter does not turn, too. It
writes to the log's descriptor, whose number stays the same when the file is opened anew.

What must not live here: who hangs, and what becomes of it (supervisor).
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

__all__ = ["STACKS", "show_stacks_on"]

STACKS: Final[int] = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""The signal on which a process shows them: one that applications do not use, where there are such; else SIGUSR2."""


def show_stacks_on(descriptor: int) -> None:
    """Show them there from now on: on `STACKS`, and at the end of a process that crashes in native code or on SIGABRT.

    Parameters:
        descriptor: of the log.
    """
    faulthandler.enable(descriptor)
    faulthandler.register(STACKS, descriptor, all_threads=True)
