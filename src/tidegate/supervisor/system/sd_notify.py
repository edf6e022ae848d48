"""What the service manager is told: systemd's notification protocol, datagrams of ``NAME=value`` lines.

    from_environment                        the manager's address, and its watchdog, out of the environment
    starting, ready, reloading, stopping    the states of the daemon, each sent until it has arrived
    status, watchdog                        news, of which only the last one counts
    store                                   a file that it keeps for the next start

Nothing here waits, and nothing here raises: the daemon serves without a manager as well. The variables are taken out of
the environment because they are the supervisor's: otherwise a worker, or a program that an application starts, could
notify the manager in the daemon's name. An upgrade in place passes them on: `environment`.

What must not live here: when something is sent (system/daemon.py), systemd's sockets (sockets/activation.py).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notify"]

logger = logging.getLogger("tidegate.supervisor")

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
LONGEST = 107  # bytes of a Unix socket's address
_PARTED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN)


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1e6))


class Notify:
    """The way to the service manager.

    Parameters:
        address: its Unix datagram socket, an absolute path or, with a leading ``@``, an abstract name; None: there is
            no manager, and every method does nothing.
        watchdog: the seconds after which the manager takes a silent daemon for a dead one; None: it never does.

    Attributes:
        watchdog_interval: seconds between two calls of `watchdog()`, half of its time; None without a watchdog.
        environment: the variables that were taken out of the environment.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self.environment: dict[str, str] = {}
        self.watchdog_interval: float | None = None
        self._watchdog = watchdog
        self._socket: socket.socket | None = None
        self._address = ""
        self._unsent = ""  # a state that the manager had no room for
        self._status = ""  # sent last
        self._complained = False
        if address is None:
            return
        if not address.startswith(("/", "@")) or len(address) < 2 or len(os.fsencode(address)) > LONGEST:
            logger.warning(
                "NOTIFY_SOCKET %r is neither an absolute path nor @NAME: the service manager is not notified", address
            )
            return
        # A leading null character makes the name abstract.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # Now, as root perhaps: another user may not be allowed to.
        with contextlib.suppress(OSError):
            self._socket.connect(self._address)
        if watchdog is not None:
            self.watchdog_interval = watchdog / 2

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notify:
        """Take what the manager has put into the environment out of it."""
        taken = {name: environment.pop(name) for name in VARIABLES if name in environment}
        watchdog: float | None = None
        # Without a process id the watchdog is for any process; with another one it is not for this one.
        if (text := taken.get("WATCHDOG_USEC")) is not None and taken.get("WATCHDOG_PID", str(os.getpid())) == str(
            os.getpid()
        ):
            if text.isascii() and text.isdigit() and int(text):
                watchdog = int(text) / 1e6
            else:
                logger.warning("WATCHDOG_USEC %r is not a number of microseconds: there is no watchdog", text)
        notify = cls(taken.get("NOTIFY_SOCKET") or None, watchdog)
        notify.environment = taken
        return notify

    @property
    def enabled(self) -> bool:
        """Whether there is a manager."""
        return self._socket is not None

    @property
    def watchdog_seconds(self) -> float | None:
        """The seconds after which the manager takes a silent daemon for a dead one."""
        return self._watchdog if self.enabled else None

    # States, each of which must arrive.

    def starting(self, seconds: float, status: str = "starting") -> None:
        """Report that the daemon starts, and may take so long."""
        self._state(f"EXTEND_TIMEOUT_USEC={_microseconds(seconds)}", status)

    def ready(self, status: str) -> None:
        """Report that the daemon serves; also at the end of a reload, successful or not."""
        self._state("READY=1", status)

    def reloading(self, seconds: float | None = None, status: str = "reloading") -> None:
        """Report that a reload begins, and may take so long (None: as long as the manager grants by itself).

        `ready()` must follow, for the manager waits for it.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000  # the manager compares it with its own request
        extended = "" if seconds is None else f"\nEXTEND_TIMEOUT_USEC={_microseconds(seconds)}"
        self._state(f"RELOADING=1\nMONOTONIC_USEC={now}{extended}", status)

    def stopping(self, seconds: float, status: str = "stopping") -> None:
        """Report that the daemon ends within so many seconds."""
        self._state(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={_microseconds(seconds)}", status)

    def _state(self, assignments: str, status: str) -> None:
        self._status = _line(status)
        self._unsent = f"{assignments}\nSTATUS={self._status}"
        self.flush()

    def flush(self) -> bool:
        """Send a state that has not arrived yet; return whether nothing is left. To be called now and then."""
        if self._unsent and self._send(self._unsent):
            self._unsent = ""
        return not self._unsent

    # News, which may be lost.

    def status(self, text: str) -> None:
        """Send what the daemon does, in one line, if it differs from the last status."""
        if (text := _line(text)) != self._status and self.flush() and self._send(f"STATUS={text}"):
            self._status = text

    def watchdog(self) -> None:
        """Report that the daemon is healthy."""
        if self.flush() and self._watchdog is not None:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> bool:
        """Send a message; return whether it need not be sent again."""
        if self._socket is None:
            return True
        data = message.encode(errors="replace")
        try:
            try:
                self._socket.send(data)
            except OSError as error:
                if error.errno not in _PARTED:
                    raise
                # A manager that has started anew has another socket of the same name.
                self._socket.connect(self._address)
                self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("the service manager cannot be notified: %s", error.strerror or error)
            return False
        self._complained = False
        return True

    # What outlives the daemon.

    def store(self, name: str, descriptor: int) -> bool:
        """Have the manager keep a file for the next start of the daemon; return whether it was asked to.

        It does if its configuration says so: FileDescriptorStoreMax=.
        """
        if self._socket is None:
            return False
        try:
            socket.send_fds(self._socket, [f"FDSTORE=1\nFDNAME={name}".encode()], [descriptor])
        except OSError:  # or it has no room, as `_send()` tells
            return False
        return True

    def close(self) -> None:
        """Close the socket, in a child and at the end."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _line(text: str) -> str:
    """Return a text in one line: a second line would be an assignment of its own."""

    return " ".join(text.split())
