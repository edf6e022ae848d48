"""What the process that watches files says, and how it ends, for test_auto_reload.py.

What must not live here: what is to come of it.
"""

from __future__ import annotations

import os
import socket

from tests.supervisor.staged import Stage


def said(stage: Stage, *lines: bytes) -> socket.socket:
    """Say something in the place of the process that watches: its end of the pipe."""
    main = stage.main
    main.auto_reload._pipe, theirs = socket.socketpair()
    main.auto_reload._pipe.setblocking(False)
    main.loop.add_reader(main.auto_reload._pipe.fileno(), main.auto_reload._on_readable)
    theirs.sendall(b"".join(lines))
    return theirs


def by_default(stage: Stage) -> None:
    def done() -> bool:
        assert stage.main.auto_reload._pipe is None
        return stage.main.complete

    stage.stop_when(done)


def long_list(stage: Stage) -> None:
    ends: list[socket.socket] = []

    def done() -> bool:
        if stage.main.complete and not ends:
            ends.append(said(stage, b'{"changed": ["a.py", "b.py",', b'"c.py", "d.py", "e.py"]}\n'))
        return sum(stage.main.pool.scoreboard.read().reloads.values()) > 0

    stage.stop_when(done)


def its_end(stage: Stage) -> None:
    ends: list[socket.socket] = []

    def done() -> bool:
        if stage.main.complete and not ends:
            ends.append(said(stage))
            stage.main.auto_reload._pid = os.posix_spawn("/bin/true", ["true"], {})
            ends[0].close()
        return bool(ends) and stage.main.auto_reload._pipe is None

    stage.stop_when(done)
