"""The one place where the supervisor waits: for file descriptors and for moments.

    watch / forget      call back when a descriptor has something to read
    after / cancel      call back once, so many seconds from now
    turn                wait for the next of them, and call back whatever is due

What must not live here: anything that knows a worker or a signal.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import time
from collections.abc import Callable

__all__ = ["Poll", "Timer"]

Callback = Callable[[], None]


class Timer:
    """A moment at which to call back, unless it is cancelled before."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Poll:
    """Descriptors in a selector, moments in a heap, and nothing that blocks but `turn()`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()  # of two timers for the same moment, the first made is the first called

    def watch(self, fd: int, callback: Callback, *, first: bool = False) -> None:
        """Call back whenever there is something to read; `first` before every other descriptor of the same turn."""
        self._selector.register(fd, selectors.EVENT_READ, (not first, callback))

    def forget(self, fd: int) -> None:
        """Watch it no longer, also in the turn that is under way. To be called before it is closed, at least once."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, so many seconds from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def turn(self) -> None:
        """Wait until something is due, and do it."""
        for key, _ in sorted(self._selector.select(self._patience()), key=lambda event: event[0].data[0]):
            # What was called before in this turn may have forgotten it, and another may have its number by now.
            if self._selector.get_map().get(key.fd) is key:
                key.data[1]()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if (callback := timer.callback) is not None:
                timer.callback = None
                callback()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def close(self) -> None:
        """Close the selector alone: in a child, its parent goes on watching."""
        self._selector.close()
        self._timers.clear()
