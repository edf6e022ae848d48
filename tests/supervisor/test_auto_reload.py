"""What the supervisor makes of the process that looks out for changes, and of what it says.

What must not live here: what it says (cases_auto_reload.py), real reloads (tests/process/test_auto_reload.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.supervisor import cases_auto_reload as cases
from tests.supervisor.staged import supervise


def test_by_default_nobody_looks_out(tmp_path: Path) -> None:
    supervise(cases.by_default, tmp_path)


def test_a_long_list_is_shown_in_part(tmp_path: Path) -> None:
    assert "changed: a.py, b.py, c.py and 2 more\n" in supervise(cases.long_list, tmp_path)


def test_its_end_is_noticed(tmp_path: Path) -> None:
    assert "file changes are no longer noticed" in supervise(cases.its_end, tmp_path)
