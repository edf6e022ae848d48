"""``tidegate check MODULE:ATTRIBUTE``: check that the daemon would start, before a deployment or a reload.

The settings are read as `tidegate serve` reads them, and a worker is forked that boots like the daemon's: it imports
the application as the user of --user, enters its lifespan, listens on a socket that no client can reach, and drains.
The addresses of the configuration are not bound: a daemon may be serving there.

What must not live here: reading settings (config/sources.py), what a worker does (worker).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import sys
import tempfile
import time
from typing import Any

import click
import msgspec

from ..config import prerequisites
from ..config.schema import Config
from ..ipc.exit_status import DUMP_GRACE, LAST_WORDS, STOPPED, UNEXPECTED
from ..ipc.pipe import Command as PipeCommand
from ..ipc.pipe import Pipe, Report, StopMode
from ..process import forks
from ..supervisor.multiproc_dir import MultiprocDir
from ..supervisor.signals import name_of
from ..supervisor.system import privileges
from ..supervisor.system.daemon import forget_secrets
from . import CONTEXT, Command
from .options import loader, parameters

__all__ = ["command", "start"]

TURN = 0.05  # seconds between two checks whether the worker has ended: its children may hold its pipe open


@click.pass_context
def _check(ctx: click.Context, /, **_: Any) -> int:
    """Check a configuration, and that the application starts.

    The options are those of `tidegate serve`. One worker is started as the daemon would start it, and stopped; the
    addresses of --bind and --admin are not bound.

    Exit status: 0 valid; 1 the application did not start in time, or ended unexpectedly; 2 the configuration is
    wrong; 3 the application cannot be loaded, or fails to start.
    """
    return start(loader(ctx).load())


command = Command(
    "check",
    callback=_check,
    params=parameters(),
    help=_check.__doc__,
    context_settings=CONTEXT,
)


def start(config: Config, *, takes_over: bool = False) -> int:
    """Start a worker, stop it, report the result and return the exit status; in the worker, which is forked, its own.

    Parameters:
        config: the settings.
        takes_over: whether it is for an upgrade: then this process has the daemon's user, which must be able to open
            the log.
    """
    from .. import logs
    from .._core.parent import end_with_parent
    from .._core.scoreboard import Scoreboard
    from ..worker import main as worker

    identity = prerequisites.prepare(config)
    config = prerequisites.decide(config)
    if takes_over:
        with prerequisites.log_file(config) as path:
            logs.try_file(path)
    forget_secrets()
    logs.begin("check", config.log_level)
    scoreboard = Scoreboard.create()
    row = scoreboard.assign(0)
    files = MultiprocDir()
    if config.admin is not None:
        files.make()
        if identity is not None and files.folder is not None:
            os.chown(files.folder, identity.uid, identity.gid, follow_symlinks=False)
    ours, theirs = socket.socketpair()
    listener = _unreachable()
    parent = os.getpid()
    with forks.own():
        pid = os.fork()
    if pid == 0:
        ours.close()
        with listener, theirs:
            if identity is not None:
                privileges.drop(identity)
            end_with_parent(parent, math.ceil(config.boot_timeout + config.graceful_timeout + LAST_WORDS))
            # There is no hub that it could be linked to, and no admin process that could publish.
            alone = msgspec.structs.replace(config, bus="memory://", publish_token=None)
            return worker.run(alone, 0, [listener], scoreboard.row(row), theirs)
    theirs.close()
    listener.close()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNEXPECTED))
    trial = TrialWorker(config, pid, ours)
    try:
        status, words = trial.run()
    finally:
        trial.close()
        files.close()
    click.echo(f"tidegate check: {words}", err=status != STOPPED)
    return status


def _unreachable() -> socket.socket:
    """Return a socket that no client can reach: its file is removed.

    Where no file can be made, its name is one that the system chooses in the abstract namespace.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-check-") as folder:
            sock.bind(f"{folder}/socket")
    except OSError:
        sock.bind("")
    return sock


class TrialWorker:
    """One worker as its parent sees it: it must become ready in time, and end in time when told to.

    Parameters:
        config: the worker's settings.
        pid: the worker's process id.
        sock: the parent's end of the worker's pipe, owned by this object.
    """

    def __init__(self, config: Config, pid: int, sock: socket.socket) -> None:
        self.config, self.pid = config, pid
        self.pipe = Pipe(sock, Report)
        self.born = time.monotonic()
        self.stages: set[str] = set()  # that the worker has reached
        self.failure: Report | None = None  # the worker's report of why it ends
        self.ended: int | None = None  # exit status, or minus the signal's number

    def run(self) -> tuple[int, str]:
        """Return the exit status of the command, and the message."""
        application, limit = self.config.application, self.config.boot_timeout
        if not (self._wait(limit, "booted") and self._serves(limit)):
            if self.ended is None:
                self._abort()
                return UNEXPECTED, f"{application} was not ready within {limit:g} s, which is --boot-timeout"
            return self._failed(f"{application} is not ready: its worker")
        took = time.monotonic() - self.born
        self.pipe.send(PipeCommand(StopMode.GRACEFUL))
        self._wait(self.config.graceful_timeout + LAST_WORDS)
        if self.ended is None:
            self._abort()
            return UNEXPECTED, f"{application} starts, but does not stop within --graceful-timeout"
        if self.ended:
            return self._failed(f"{application} starts, but its worker")
        return STOPPED, f"the configuration is valid and {application} starts (in {took:.2f} s)"

    def close(self) -> None:
        """Kill the worker if it still runs, and reap it."""
        self._kill(signal.SIGKILL)
        if self.ended is None:
            os.waitpid(self.pid, 0)
        self.pipe.close()

    def _failed(self, what: str) -> tuple[int, str]:
        """Return status and message for a worker that ended by itself."""
        assert self.ended is not None
        if self.failure is not None and self.failure.error:
            return self.failure.exit or UNEXPECTED, self.failure.error
        if self.ended >= 0:
            return UNEXPECTED, f"{what} exited with status {self.ended}"
        return UNEXPECTED, f"{what} was killed by {name_of(-self.ended)}"

    def _serves(self, limit: float) -> bool:
        """Tell the worker to serve; return whether it is ready in time."""
        self.pipe.send(PipeCommand(serve=True))
        return self._wait(self.born + limit - time.monotonic(), "ready")

    def _wait(self, seconds: float, stage: str | None = None) -> bool:
        """Wait until the worker reaches the stage, ends, or the time is over; return whether it reached the stage."""
        deadline = time.monotonic() + seconds
        while True:
            self._reap()  # first: then the last report is in the pipe
            for report in self.pipe.receive():
                self.stages.add(report.stage)
                if report.error is not None:
                    self.failure = report
            rest = deadline - time.monotonic()
            if stage in self.stages or self.ended is not None or rest <= 0:
                return stage in self.stages
            select.select([] if self.pipe.ended else [self.pipe], [], [], min(TURN, rest))

    def _reap(self) -> None:
        if self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.ended = os.waitstatus_to_exitcode(status)

    def _abort(self) -> None:
        """Abort the worker, and let it log its stacks."""
        self._kill(signal.SIGABRT)
        self._wait(DUMP_GRACE)

    def _kill(self, number: int) -> None:
        if self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
