"""What the supervisor makes of the process that looks out for changes, and of what it says.

What must not live here: real reloads (tests/process/test_auto_reload.py).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.supervisor.staged import supervise

STAGE = """
worker = obedient
told = []

def say(*lines):
    # In the place of the process that looks out.
    main.changes._pipe, theirs = socket.socketpair()
    main.changes._pipe.setblocking(False)
    main.poll.watch(main.changes._pipe.fileno(), main.changes._on_said)
    theirs.sendall(b"".join(lines))
    return theirs
"""


def test_by_default_nobody_looks_out(tmp_path: Path) -> None:
    program = """
    worker = obedient

    def done():
        assert main.changes._pipe is None
        return main.complete

    stop_when(done)
    """
    supervise(tmp_path, program)


def test_a_long_list_is_shown_in_part(tmp_path: Path) -> None:
    program = """
    end = []

    def done():
        if main.complete and not end:
            end.append(say(b'{"changed": ["a.py", "b.py",', b'"c.py", "d.py", "e.py"]}\\n'))
        return sum(main.pool.scoreboard.read().reloads.values()) > 0

    stop_when(done)
    """
    assert "changed: a.py, b.py, c.py and 2 more\n" in supervise(tmp_path, STAGE + textwrap.dedent(program))


def test_its_end_is_noticed(tmp_path: Path) -> None:
    program = """
    end = []

    def done():
        if main.complete and not end:
            end.append(say())
            main.changes._pid = os.posix_spawn("/bin/true", ["true"], {})
            end[0].close()
        return end and main.changes._pipe is None

    stop_when(done)
    """
    assert "changes of files are no longer noticed" in supervise(tmp_path, STAGE + textwrap.dedent(program))
