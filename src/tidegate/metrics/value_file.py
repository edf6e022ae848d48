"""A file of prometheus_client's multiprocess mode that cannot end the process, whatever happens to the disk.

That library writes through memory that is mapped to a sparse file. On a full disk such a write is SIGBUS, and with a
folder that is gone or read-only the application's `Counter(...)` raises. Here blocks of the disk are allocated first;
if that fails, the values stay in the process, which goes on counting without the file.

What must not live here: the names of files (application.py), the folder (supervisor/multiproc_dir.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from prometheus_client.mmap_dict import MmapedDict

__all__ = ["ValueFile"]

SIZE = 1 << 16  # bytes of a new file


class ValueFile(MmapedDict):
    """A dictionary of floats in a file, as far as there is room for it.

    A value that has a place in the file keeps it; after the disk was full new values have none, until another process
    takes over the file.

    Parameters:
        filename: the file, which may exist.
        read_mode: only read it.
    """

    failed: Callable[[OSError], object] = staticmethod(lambda error: None)
    """Called with the error when a value has no place in the file, perhaps many times."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._full = False
        try:
            if not read_mode:
                _make(filename)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call,unused-ignore]
        except OSError as error:
            self._f = self._m = None  # type: ignore[assignment,unused-ignore]
            self._positions: dict[str, int] = {}
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._full = True
        self.failed(error)

    def _init_value(self, key: str) -> None:
        """Make a place for a value, for which the file may have to grow. Raise OSError if it cannot."""
        most = self._used + len(key.encode()) + 4 + 8 + 16  # length, padding, value and time
        capacity = self._capacity
        while capacity < most:
            capacity *= 2
        if capacity > self._capacity:
            _reserve(self._f.fileno(), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call,unused-ignore]

    def _has(self, key: str) -> bool:
        """Make a place for the value, if it has none. Return whether it has one."""
        if key not in self._positions and not self._full:
            try:
                self._init_value(key)
            except OSError as error:
                self._give_up(error)
        return key in self._positions

    def read_value(self, key: str) -> tuple[float, float]:
        """Return the value and its time; zeros for a value without a place."""
        if not self._has(key):
            return 0.0, 0.0
        value, timestamp = super().read_value(key)  # type: ignore[no-untyped-call,unused-ignore]
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value, if it has a place."""
        if self._has(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call,unused-ignore]

    def read_all_values(self) -> Iterator[tuple[str, float, float]]:
        """Yield every value in the file."""
        if self._m is not None:
            yield from super().read_all_values()  # type: ignore[no-untyped-call,unused-ignore]


def _make(filename: str) -> None:
    """Make the file if it is not there, and allocate all of it. On OSError, no new file is left."""
    descriptor = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _reserve(descriptor, max(size, SIZE))
        except OSError:
            if not size:
                with contextlib.suppress(OSError):
                    os.unlink(filename)
            raise
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    """Allocate blocks of the disk for so many bytes of the file."""
    try:
        os.posix_fallocate(descriptor, 0, size)
        return
    except AttributeError:  # not on macOS
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    offset = os.fstat(descriptor).st_size
    while offset < size:
        offset += os.pwrite(descriptor, bytes(min(SIZE, size - offset)), offset)
