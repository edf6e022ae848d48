"""A run of everything goes in a process for each processor and one more; a part of it that is named goes in one.

A file's tests stay together and in order, since they share what their fixtures make. `pytest -n 0` has everything in
one process, `pytest -n 4 tests/process` a part in four. What must not live here: what single tests need.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import pytest

# More of them would only wait for each other: many tests start a daemon with processes of its own.
_MOST = 4


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose, where the command line has not chosen. Without pytest-xdist there is no choice."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of the processes, or what a test in it runs
        return
    option = config.option
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    chosen = getattr(option, "numprocesses", 0) is not None or option.tx or option.usepdb or option.collectonly
    if everything and not chosen:
        option.numprocesses = min(_MOST, len(os.sched_getaffinity(0)) + 1)  # one of them waits, for a daemon
    if getattr(option, "numprocesses", None) and option.dist in ("no", "load"):
        option.dist = "loadfile"
        option.loadscopereorder = False  # the order is this project's own


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """pytest-xdist's own, which gives a test that ended its process to the next one, and so on: here it has failed."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def remove_node(self, node: Any) -> str | None:
            files = self.assigned_work[node]
            left = [test for tests in files.values() for test, done in tests.items() if not done]
            for file, tests in list(files.items()):
                tests.update(dict.fromkeys(left[:1] if left and left[0] in tests else [], True))
                if all(tests.values()):
                    del files[file]  # or nobody would ever be told that it is done
            super().remove_node(node)
            return left[0] if left else None

    return Scheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[Any]) -> None:
    """Pass the interpreter's options on: `python -X dev -W error -m pytest` means every process."""
    options = ["-X", "dev"] if sys.flags.dev_mode else []
    options += [f"-W{option}" for option in sys.warnoptions]
    for spec in specs:
        spec.python = shlex.join([sys.executable, *options])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests last, so that a plain mistake shows in seconds; their files first where processes share the work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path not in slow)
    else:
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
