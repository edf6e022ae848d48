"""The native code built another way, in a copy of the project: with sanitizers, or counting which lines run.

The copy is a folder of its own, so that the modules in src stay what they are. What must not live here: test cases,
and what the results should be.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.support.harness import ROOT, require
from tests.support.patience import LONG

BUILD = """
import sys
from setuptools import setup
sys.argv = ["setup.py", "-q", "build_ext", "--inplace", "-j", "2"]
setup()
"""
Done = subprocess.CompletedProcess[str]
LEFT_OUT = ("*.so", "*.pyc", "__pycache__", "*.egg-info")


def need_a_compiler(*tools: str) -> None:
    """Skip the test unless native code can be built here, with gcc and these others of its tools; fail in CI."""
    for name in ("Cython", "setuptools"):
        require(find_spec(name), f"the Python package {name}")
    for name in ("gcc", *tools):
        require(shutil.which(name), name)
    require((Path(_include()) / "Python.h").exists(), "Python.h")


@functools.cache
def _include() -> str:
    import sysconfig

    return sysconfig.get_path("include")


def copy(to: Path, flags: Sequence[str]) -> Path:
    """Copy the project and build its native code with `flags` for gcc, which also go to its linker. Returns `to`."""
    for name, generated in (("src", ["*.c"]), ("tests", [])):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns(*LEFT_OUT, *generated))
    shutil.copy(ROOT / "README.md", to)
    project = (ROOT / "pyproject.toml").read_text()
    assert '"-O3", ' in project, "pyproject.toml optimizes in another way: it overrides the flags given here"
    (to / "pyproject.toml").write_text(project.replace('"-O3", ', ""))
    joined = " ".join(flags)
    done = run(to, [sys.executable, "-c", BUILD], CFLAGS=joined, LDFLAGS=joined, CC="gcc")
    assert done.returncode == 0, done.stdout[-4000:]
    return to


def run(
    copied: Path, command: Sequence[str], timeout: float = LONG, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the copy, where its modules are found first; both outputs in `stdout`."""
    return subprocess.run(
        command,
        cwd=copied,
        env={**os.environ, "PYTHONPATH": str(copied / "src"), "PYTEST_ADDOPTS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def run_tests(
    copied: Path, *arguments: str, timeout: float = LONG, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the copy's own tests: pytest with `arguments`, without a cache, and with standard error left as it is."""
    proof = (
        "import sys, pytest, tidegate._core.channel as native\n"
        f"assert native.__file__.startswith({str(copied)!r}), native.__file__\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-X", "faulthandler", "-c", proof, "-q", "-p", "no:cacheprovider", "--capture=sys"]
    return run(copied, [*command, *arguments], timeout, **environment)
