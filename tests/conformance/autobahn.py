"""The Autobahn fuzzing client: finding a Python 2.7 for it, installing it outside the project, running chapters of it.

The suite is a PyPI package for Python 2.7 that pins all it needs. Its environment is made once, in
TIDEGATE_AUTOBAHN or else $XDG_CACHE_HOME/tidegate/autobahn-VERSION. The interpreter is TIDEGATE_PYTHON2, or a
`python2.7` or `pypy` on PATH, or pyenv's: Debian 12 packages none.
What must not live here: which cases exist and what they must yield (test_autobahn.py).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

VERSION = "25.10.1"
VIRTUALENV = "virtualenv>=20.21,<20.22"  # the last that makes environments of Python 2.7


class Result(TypedDict):
    """What the suite says of one case."""

    behavior: str
    behaviorClose: str
    duration: int
    remoteCloseCode: int | None
    reportfile: str


def python2() -> Path | None:
    """A Python 2.7, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates: Iterator[str | Path | None] = iter(
        [
            os.environ.get("TIDEGATE_PYTHON2"),
            *sorted(pyenv.glob("versions/2.7.*/bin/python2.7")),
            shutil.which("python2.7"),  # after pyenv's own: on PATH its stand-in fails when another version is chosen
            shutil.which("pypy"),
        ]
    )
    return next((Path(found) for found in candidates if found and Path(found).exists()), None)


def home() -> Path:
    """The folder of the suite's environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TIDEGATE_AUTOBAHN") or cache / "tidegate" / f"autobahn-{VERSION}")


def install(interpreter: Path) -> Path:
    """The suite's command `wstest`, installed first when it is not there. Safe when two runs start together."""
    target = home()
    command, complete = target / "venv/bin/wstest", target / "complete"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return command
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target / "tool")]
        _run([*pip, VIRTUALENV])
        tool = {**os.environ, "PYTHONPATH": str(target / "tool")}
        venv = [sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", "--clear"]
        _run([*venv, "--python", str(interpreter), str(target / "venv")], tool)
        _run([str(target / "venv/bin/python"), "-m", "pip", "install", "--quiet", f"autobahntestsuite=={VERSION}"])
        complete.touch()
    return command


def fuzz(wstest: Path, url: str, cases: Sequence[str], folder: Path, timeout: float) -> dict[str, Result]:
    """Run `cases` ("6.*") of the fuzzing client against `url`; case -> result, reports in `folder`."""
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": "tidegate", "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    _run([str(wstest), "-m", "fuzzingclient", "-s", str(folder / "spec.json")], timeout=timeout, folder=folder)
    results: dict[str, dict[str, Result]] = json.loads((folder / "reports/index.json").read_text())
    return results["tidegate"]


def _run(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    timeout: float = 900,
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
