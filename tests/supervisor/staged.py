"""Runs a supervisor in a process of its own, whose children are a few lines of Python that do as a case wants.

What must not live here: test cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.patience import PATIENCE

PRELUDE = """
import os, select, signal, socket, sys, time
from tidegate import logs
from tidegate.config.schema import Config
from tidegate.config.bind import Unix
from tidegate.supervisor import pool
from tidegate.supervisor import supervisor as module
from tidegate.supervisor.signals import Signals
from tidegate.supervisor.sockets.listeners import Listeners
from tidegate.supervisor.supervisor import Supervisor
from tidegate.ipc.pipe import Level, Order, Pipe, Report

def obedient(config, slot, sockets, row, pipe):
    end = Pipe(pipe, Order)
    end.send(Report("ready"))
    return until_told(end)

def until_told(end):
    while not end.ended:
        select.select([end], [], [])
        if end.receive():
            break
    end.send(Report("draining"))
    end.send(Report("gone"))
    return 0

def stop_when(condition):
    # In the supervisor alone: look at it in every turn of its loop.
    turn = module.Poll.turn
    supervisor = os.getpid()
    def stopping(poll):
        turn(poll)
        if os.getpid() == supervisor and not main.pool.level and condition():
            os.kill(supervisor, signal.SIGTERM)
    module.Poll.turn = stopping

settings = dict(application="application:handler", bind=(Unix("socket"),), admin=None, workers=2, graceful_timeout=2.0)
"""

END = """
logs.begin("supervisor", "debug")
signals = Signals()
signals.catch()
main = Supervisor(Config(**settings), signals, worker=worker, admin=None, load=globals().get("load"))
outcome = main.run()
if not isinstance(outcome, int):
    os._exit(outcome())
assert not list(main.pool.children())
sys.exit(outcome)
"""


def supervise(tmp_path: Path, program: str, status: int = 0) -> str:
    """The log of a supervisor that ends with this status."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", PRELUDE + textwrap.dedent(program) + END],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "socket").exists()
    return done.stderr
