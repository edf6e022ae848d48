"""A file of prometheus_client's multiprocess mode that costs nobody the process: there is always room for what it says.

That library writes through memory that is mapped to a sparse file. On a full disk such a write is SIGBUS, and with a
folder that is gone or read-only the application's `Counter(...)` raises. Here the system sets the blocks aside first;
where it has none, what would be in the file stays in the process, which counts on for itself.

What must not live here: which files there are (application.py), the folder (supervisor/multiproc_dir.py).
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

    What has a place there keeps it; what comes after the disk was full has none, until another process takes the file.

    Parameters:
        filename: the file, which may exist.
        read_mode: only read it.
    """

    failed: Callable[[OSError], object] = staticmethod(lambda error: None)
    """Told why something has no place in a file, perhaps many times."""

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
        """Make a place for a value, for which the file may have to grow; OSError if it cannot."""
        most = self._used + len(key.encode()) + 4 + 8 + 16  # length, padding, value and time
        capacity = self._capacity
        while capacity < most:
            capacity *= 2
        if capacity > self._capacity:
            _reserve(self._f.fileno(), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call,unused-ignore]

    def _has(self, key: str) -> bool:
        """Whether the value has a place, now at the latest."""
        if key not in self._positions and not self._full:
            try:
                self._init_value(key)
            except OSError as error:
                self._give_up(error)
        return key in self._positions

    def read_value(self, key: str) -> tuple[float, float]:
        """The value and its time; zeros for one that has no place."""
        if not self._has(key):
            return 0.0, 0.0
        value, timestamp = super().read_value(key)  # type: ignore[no-untyped-call,unused-ignore]
        return value, timestamp

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value, if it has a place."""
        if self._has(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call,unused-ignore]

    def read_all_values(self) -> Iterator[tuple[str, float, float]]:
        """Every value in the file."""
        if self._m is not None:
            yield from super().read_all_values()  # type: ignore[no-untyped-call,unused-ignore]


def _make(filename: str) -> None:
    """Make the file if it is not there, and set aside all of it; OSError if that cannot be, and then there is none."""
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
    """Let the file have so many bytes, with a block of the disk under each of them."""
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
