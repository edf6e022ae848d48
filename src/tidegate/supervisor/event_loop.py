"""The supervisor's event loop, the one place where it waits: for file descriptors and for timers.

    add_reader / remove_reader    call back when a descriptor has something to read
    call_later                    call back once, so many seconds from now, unless the Timer is cancelled
    run_once                      wait until something is due, and call it back

What must not live here: anything that knows a worker or a signal.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import time
from collections.abc import Callable

__all__ = ["EventLoop", "Timer"]

Callback = Callable[[], None]


class Timer:
    """A callback at a moment, unless it is cancelled before."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class EventLoop:
    """Descriptors in a selector, timers in a heap, and nothing that blocks but `run_once()`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()  # of two timers for the same moment, the first made is the first called

    def add_reader(self, fd: int, callback: Callback, *, first: bool = False) -> None:
        """Call back whenever there is something to read; `first` before every other descriptor of the same turn."""
        self._selector.register(fd, selectors.EVENT_READ, (not first, callback))

    def remove_reader(self, fd: int) -> None:
        """Call back no more, also in the turn that is under way. To be called before the descriptor is closed."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, so many seconds from now."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def run_once(self) -> None:
        """Wait until something is due, and call it back."""
        for key, _ in sorted(self._selector.select(self._timeout()), key=lambda event: event[0].data[0]):
            # An earlier callback of this turn may have removed it, and another may have its number by now.
            if self._selector.get_map().get(key.fd) is key:
                key.data[1]()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if (callback := timer.callback) is not None:
                timer.callback = None
                callback()

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def close(self) -> None:
        """Close the selector alone: in a child of a fork, the parent's stays as it is."""

        self._selector.close()
        self._timers.clear()
