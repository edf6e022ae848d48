"""A test that hangs: after its limit its name and everybody's stacks are told, and its process ends.

In a parallel run only that test is lost: another process goes on with the others. A signal would not do, since none
reaches a test that waits in uvloop. What must not live here: the limits (pyproject.toml, tests/support/patience.py).
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import SLOWNESS

# Seconds after which the process is ended from outside Python: native code that loops lets no thread run.
_GRACE = 60.0

_output = pytest.StashKey[int]()
_folder = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


def pytest_configure(config: pytest.Config) -> None:
    """Open what is told to: standard error as it is before pytest captures it, or the parallel run's own file."""
    told = getattr(config, "workerinput", {}).get("tidegate_hangs")
    config.stash[_output] = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if told else os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_output])
    if _folder in config.stash:
        config.stash[_folder].cleanup()


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """In place of pytest-timeout's own ways."""
    limit = settings.timeout * SLOWNESS
    output = item.config.stash[_output]
    timer = threading.Timer(limit, _give_up, (item.nodeid, limit, output))
    timer.daemon = True
    timer.name = f"the limit of {item.nodeid}"
    timer.start()
    faulthandler.dump_traceback_later(limit + _GRACE, exit=True, file=output)

    def cancel() -> None:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
        timer.join()

    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # which pytest-timeout calls
    return True


def _give_up(name: str, limit: float, output: int) -> None:
    """Tell what every thread and every task does, and end the process."""
    os.write(output, f"\n{name} did not end within {limit:g} s\n".encode())
    faulthandler.dump_traceback(output)
    for task in [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]:
        os.write(output, f"\n{task!r} waits in\n{''.join(_waits(task.get_coro()))}".encode())
    os._exit(1)


def _waits(coroutine: Any) -> Iterator[str]:
    """Where a coroutine waits, and what it waits for does, and so on."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n'
        coroutine = coroutine.cr_await


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of a parallel run where to write: its standard error is nobody's."""
    if _folder not in node.config.stash:
        node.config.stash[_folder] = tempfile.TemporaryDirectory(prefix="tidegate-hangs-")
    node.workerinput["tidegate_hangs"] = str(Path(node.config.stash[_folder].name) / node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    """Add the stacks to the report of a test whose process has ended."""
    told = Path(report.node.workerinput["tidegate_hangs"])
    if told.exists():
        report.longrepr = f"{report.longrepr}\n{told.read_text(errors='replace')}"
