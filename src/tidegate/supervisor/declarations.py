"""What workers say that their application declares of its channels, and that the admin process is told.

    Declarations    what holds now: `tend` after news, `current` for who asks

It is that of the newest worker that serves: a reload that fails leaves what was there before. What must not live here:
what is said (bus/declaration.py), to which this process is a messenger.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..ipc.pipe import Command
from .worker_handle import Handle

__all__ = ["Declarations"]


class Declarations:
    """What the application of a daemon declares.

    Parameters:
        workers: returns the workers that there are.

    Attributes:
        current: what holds, also while no worker serves; UNSET before the first one does.
    """

    def __init__(self, workers: Callable[[], list[Handle]]) -> None:
        self._workers = workers
        self.current: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def tend(self, admin: Handle | None) -> None:
        """See what holds now, and tell the admin process, as soon as it reads, what it has not been told."""
        serving = [each for each in self._workers() if each.stage == "ready" and not each.stop_mode]
        said = [each for each in serving if each.declares is not msgspec.UNSET]  # an older release says nothing
        if said:
            self.current = max(said, key=lambda each: (each.generation.number, each.ready_at or 0.0)).declares
        if admin is None or self.current is msgspec.UNSET or admin.told == self.current:
            return
        if admin.pipe.send(Command(declares=self.current)):
            admin.told = self.current
