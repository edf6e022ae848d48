"""The client's end of the control socket, for commands that send a request to a daemon and wait for its effect.

    ControlClient      one request and its answers: `answers`, `wait_for_end`
    conduct            send a request, print progress, wait, return the exit status
    control_command    a command with the options that all of these have
    control_option     the option that names a daemon's control socket

What must not live here: the request of each command (its own module), the daemon's end (supervisor/control.py).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from ..config.schema import settings
from ..config.types import DURATION
from ..ipc.control_protocol import Answer, Request, encode, socket_path
from ..ipc.exit_status import DONE, FAILED, INTERRUPTED, NOT_RUNNING, TIMED_OUT
from ..process import peer
from . import CONTEXT, Command, Value, note

__all__ = ["ControlClient", "ControlError", "conduct", "control_command", "control_option", "path_of"]

STATUSES = (
    "Exit status: 0 done; 1 failed, with the daemon's reason; 2 a mistake on the command line; 5 no daemon is there;"
    " 6 timed out or 130 interrupted, while the daemon goes on."
)

USUAL = "/run/tidegate/control.sock"  # of deploy/systemd/tidegate.service
PATIENCE = 10.0  # seconds for the first answer
PAUSE = 0.05  # seconds between two attempts to connect while the socket's queue is full

_ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR, errno.ENOTSOCK)


class ControlError(Exception):
    """A request that had no effect.

    Attributes:
        status: the exit status for it.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status, self.problem = status, problem

    def __str__(self) -> str:
        return self.problem


class ControlClient:
    """A request to a daemon, as a context manager.

    Parameters:
        path: its control socket.
        request: what to ask for.
        timeout: seconds for all answers; None: no limit after the first answer, which has `PATIENCE`.

    Raises:
        ControlError: there is no daemon, or it does not answer; every method may raise it.
    """

    def __init__(self, path: str, request: Request, timeout: float | None = None) -> None:
        self.path = path
        self._limit = timeout
        self._began = time.monotonic()
        self._deadline = self._began + (PATIENCE if timeout is None else timeout)
        self._received = b""
        self._lost = False  # the connection has ended
        self._decoder = msgspec.json.Decoder(Answer)
        self._socket = self._connect()
        self._pidfd = self._daemon()
        try:
            self._socket.sendall(encode(request))
        except OSError:  # an answer may have arrived nevertheless
            pass

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            while True:
                sock.settimeout(self._left())
                try:
                    sock.connect(self.path)
                except BlockingIOError:  # the socket's queue is full
                    time.sleep(PAUSE)
                else:
                    return sock
        except OSError as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise self._over() from None
            why = (error.strerror or str(error)).lower()
            if error.errno in _ABSENT:
                raise ControlError(NOT_RUNNING, f"no daemon listens on {self.path} ({why}): {_ADVICE}") from None
            if isinstance(error, PermissionError):
                why = "only the daemon's own user and root may connect"
            raise ControlError(FAILED, f"cannot connect to {self.path}: {why}") from None
        except ControlError:
            sock.close()
            raise

    def _daemon(self) -> int:
        """Return a descriptor of the daemon's process, to wait for its end; -1 where the system has none."""
        pid = peer.credentials(self._socket).pid
        try:
            return os.pidfd_open(pid) if pid > 0 else -1
        except (AttributeError, OSError):
            return -1

    def _left(self) -> float | None:
        """Return the seconds left; None: no limit."""
        if self._deadline == float("inf"):
            return None
        if (left := self._deadline - time.monotonic()) <= 0:
            raise self._over()
        return left

    def _over(self) -> ControlError:
        if self._limit is None:
            return ControlError(
                TIMED_OUT, f"the daemon at {self.path} has not answered within {PATIENCE:g} s; it may still do so"
            )
        return ControlError(TIMED_OUT, f"not done within {self._limit:g} s: the daemon at {self.path} goes on with it")

    def answers(self) -> Iterator[Answer]:
        """Yield the daemon's answers as they come; the last one says whether it is done."""
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                answer = self._read(line)
                if self._limit is None:
                    self._deadline = float("inf")
                yield answer
                if answer.done is not None:
                    return
                continue
            self._socket.settimeout(self._left())
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise self._over() from None
            except OSError:  # the daemon has closed without reading all
                data = b""
            if not data:
                raise ControlError(FAILED, f"the daemon at {self.path} closed the connection without an answer")
            self._received += data

    def _read(self, line: bytes) -> Answer:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ControlError(FAILED, f"{self.path} is not tidegate's: its answer was {line[:80]!r}") from None

    def wait_for_end(self) -> None:
        """Wait until the daemon's process has ended, where the system tells."""
        while self._pidfd >= 0:
            if select.select([self._pidfd], [], [], self._left())[0]:
                return


_ADVICE: Final = (
    "name the socket that its --control has, with --control PATH or TIDEGATE_CONTROL; a daemon that is started without"
    " --control or RUNTIME_DIRECTORY has none"
)


def conduct(ctx: click.Context, request: Request, *, gone: bool = False) -> int:
    """Send a request, print progress to standard error, wait for the effect, and return the exit status.

    Parameters:
        ctx: the command's context, with the options below.
        request: the request.
        gone: whether the effect is the end of the daemon.
    """
    try:
        with ControlClient(path_of(ctx), request, ctx.params["timeout"]) as client:
            for answer in client.answers():
                if answer.done is False:
                    raise ControlError(FAILED, answer.text)
                if answer.accepted and ctx.params.get("no_wait"):
                    break
                if answer.text:
                    note(ctx, answer.text, err=answer.done is None)
            else:
                if gone:
                    client.wait_for_end()
    except ControlError as error:
        note(ctx, str(error))
        return error.status
    except KeyboardInterrupt:
        note(ctx, "interrupted: the daemon goes on with it")
        return INTERRUPTED
    return DONE


# The options that these commands share.


def path_of(ctx: click.Context) -> str:
    """Return the control socket: of the command line, else of the environment, else the usual one."""
    setting = settings()["control"]
    given, name = ctx.params["control"], "--control"
    if given is None:
        given, name = os.environ.get(setting.environment) or "auto", setting.environment
    value = setting.read(given, given_as=name)
    if value is None:
        raise click.UsageError(
            f"{name} is none: give the path of the daemon's control socket, with --control PATH", ctx
        )
    return socket_path(value, os.environ) or USUAL


def control_option() -> click.Option:
    """Make the option that names a daemon's control socket."""
    return click.Option(
        ["--control"],
        metavar="PATH",
        help="The daemon's control socket, as in its own --control."
        f"  [default: $TIDEGATE_CONTROL, $RUNTIME_DIRECTORY/control.sock or {USUAL}]",
    )


def control_command(name: str, callback: Any, *params: click.Parameter, wait: bool = True) -> Command:
    """Make a command that sends a request to a daemon: its own parameters come first, then the shared ones."""
    usual = f"{PATIENCE:g} seconds for the first answer, then no limit" if wait else f"{PATIENCE:g} seconds"
    common: list[click.Parameter] = [
        control_option(),
        click.Option(
            ["--timeout"],
            type=Value(DURATION),
            metavar=DURATION.metavar,
            help=f"Time to wait for the effect.  [default: {usual}]",
        ),
    ]
    if wait:
        common.append(
            click.Option(["--no-wait"], is_flag=True, help="Return when the daemon has accepted the request.")
        )
    text = f"{callback.__doc__}\n\n{STATUSES}"
    return Command(
        name, callback=click.pass_context(callback), params=[*params, *common], help=text, context_settings=CONTEXT
    )
