"""What tests need from other ecosystems, installed once, outside the project: $XDG_CACHE_HOME/tidegate/NAME.

What must not live here: what is installed, and how.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.patience import LONG


def installed(name: str, install: Callable[[Path], None], folder: Path | None = None) -> Path:
    """The folder that `install` has filled, now or at an earlier run. Safe when two runs start together."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = folder or cache / "tidegate" / name
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            install(target)
            (target / "complete").touch()
    return target


def run(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    timeout: float = LONG,
    folder: Path | None = None,
) -> None:
    """Run a command to its end; RuntimeError with the end of its output when it fails."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace")[-4000:]
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{output}")
