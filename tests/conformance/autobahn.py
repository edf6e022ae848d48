"""The Autobahn test suite: finding a Python 2.7 for it, installing it outside the project, running cases of it.

The suite is a PyPI package for Python 2.7 that pins all it needs. Its environment is made once, in
TIDEGATE_AUTOBAHN or else $XDG_CACHE_HOME/tidegate/autobahn-VERSION. The interpreter is TIDEGATE_PYTHON2, or a
`python2.7` or `pypy` on PATH, or pyenv's: Debian 12 packages none.
What must not live here: which cases exist and what they must yield (cases.py).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from tests.support import cache
from tests.support.harness import free_port, wait_until
from tests.support.patience import LONG

VERSION = "25.10.1"
VIRTUALENV = "virtualenv>=20.21,<20.22"  # the last that makes environments of Python 2.7
AGENT = "tidegate"  # who is tested, in the suite's reports


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


def install(interpreter: Path) -> Path:
    """The suite's command `wstest`, installed first when it is not there."""

    def fill(target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target / "tool")]
        cache.run([*pip, VIRTUALENV])
        tool = {**os.environ, "PYTHONPATH": str(target / "tool")}
        venv = [sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", "--clear"]
        cache.run([*venv, "--python", str(interpreter), str(target / "venv")], tool)
        cache.run([str(target / "venv/bin/python"), "-m", "pip", "install", "--quiet", f"autobahntestsuite=={VERSION}"])

    given = os.environ.get("TIDEGATE_AUTOBAHN")
    return cache.installed(f"autobahn-{VERSION}", fill, Path(given) if given else None) / "venv/bin/wstest"


def fuzz_server(wstest: Path, url: str, pattern: str, folder: Path) -> dict[str, Result]:
    """Run the cases of a pattern ("6.*") of the fuzzing client against `url`; case -> result, reports in `folder`."""
    spec = _write_spec(folder, pattern, {"servers": [{"agent": AGENT, "url": url}]})
    cache.run([str(wstest), "-m", "fuzzingclient", "-s", str(spec)], timeout=LONG, folder=folder)
    return _results(folder)


class FuzzingServer:
    """The fuzzing server on a free port, as a context manager: clients ask it for the cases of a pattern.

    Attributes: uri, folder (of the reports, once a client asked for them).
    """

    def __init__(self, wstest: Path, pattern: str, folder: Path) -> None:
        self._port = free_port()
        self.uri = f"ws://127.0.0.1:{self._port}"
        self.folder = folder
        spec = _write_spec(folder, pattern, {"url": self.uri})
        self._command = [str(wstest), "-m", "fuzzingserver", "--webport", "0", "-s", str(spec)]

    def __enter__(self) -> FuzzingServer:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._listens, "the fuzzing server listens")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def results(self) -> dict[str, Result]:
        """Case -> result."""
        return _results(self.folder)

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def _write_spec(folder: Path, pattern: str, more: dict[str, Any]) -> Path:
    spec = {
        "outdir": str(folder / "reports"),
        "cases": [pattern],
        "exclude-cases": [],
        "exclude-agent-cases": {},
        **more,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


def _results(folder: Path) -> dict[str, Result]:
    results: dict[str, dict[str, Result]] = json.loads((folder / "reports/index.json").read_text())
    return results[AGENT]
