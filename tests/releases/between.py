"""Something that happens between two programs of an upgrade: when one has left its state, before the other reads it.

    between    the environment of a daemon in which a function is called then: change(task, state)

Python imports `sitecustomize` before it runs anything, so it needs nothing of the daemon's.
What must not live here: test cases.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

BETWEEN = """
import json, os
task, form, number = (os.environ.get("TIDEGATE_UPGRADE") or "none 0 0").split()
if task != "none":
    state = json.loads(os.pread(int(number), 2**20, 0))
    change(task, state)
    os.ftruncate(int(number), 0)
    os.pwrite(int(number), json.dumps(state).encode(), 0)
"""


def between(folder: Path, change: str) -> dict[str, str]:
    """The environment in which what one program leaves is changed before the next one runs."""
    program = textwrap.dedent(change) + BETWEEN
    (folder / "sitecustomize.py").write_text(program, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}
