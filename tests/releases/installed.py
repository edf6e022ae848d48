"""Releases in a virtual environment, one in the place of the other, as an operator installs them.

    need_history    skips the test where the history does not reach back to RELEASE
    wheel_before    the wheel of RELEASE, built once on a machine
    wheel_of_today  the wheel of the present tree, under a version that no release has
    Environment     a virtual environment: `install` a wheel over what is there, and `run` the command

What must not live here: daemons, test cases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from tests.support.cache import installed, run
from tests.support.harness import ROOT, require
from tests.support.patience import LONG

RELEASE = "e608f85e47e8774f54ced6f5df2a167f361ddd21"
"""The last commit before classes and modules got other names; the words of recorded/ are its own."""

LAYOUT = 6
"""Of its scoreboard."""

TODAY = "9999.0"


def need_history() -> None:
    """Skip the test unless that commit is here. In CI, a clone without it fails; an archive has no history at all."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: there is no release before it to be had")
    require(shutil.which("git"), "git")
    command = ["git", "cat-file", "-e", f"{RELEASE}^{{commit}}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=LONG).returncode == 0
    require(found, f"commit {RELEASE[:7]} (of a shallow clone, `git fetch --unshallow` gets the rest)")


def build(source: Path, to: Path) -> Path:
    """The wheel of a source tree, with the build tools that are installed here."""
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(to), str(source)])
    (wheel,) = to.glob("*.whl")
    return wheel


def wheel_before(folder: Path) -> Path:
    """The wheel of RELEASE; `folder` is where it is built, if it has not been."""

    def make(target: Path) -> None:
        archive = folder / "before.tar"
        run(["git", "archive", "--output", str(archive), RELEASE], folder=ROOT)
        with tarfile.open(archive) as file:
            file.extractall(folder / "before", filter="data")
        for stale in target.glob("*.whl"):
            stale.unlink()
        build(folder / "before", target)

    # For one interpreter, as its name says.
    (wheel,) = installed(f"release-{RELEASE[:7]}{sysconfig.get_config_var('EXT_SUFFIX')}", make).glob("*.whl")
    return wheel


def wheel_of_today(folder: Path) -> Path:
    """The wheel of what is here now."""
    source = folder / "today"
    left_out = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=left_out)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    version = source / "src" / "tidegate" / "version.py"
    lines = version.read_text(encoding="utf-8").splitlines()
    lines = [f'version = "{TODAY}"' if line.startswith("version =") else line for line in lines]
    version.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return build(source, folder / "wheel")


class Environment:
    """A virtual environment whose dependencies are those of the tests.

    Parameters:
        folder: where to make it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        (packages,) = folder.glob("lib/python*/site-packages")
        # Paths in a file lead to packages, and not to other such files: where this project is installed for
        # development it is not found by them.
        paths = [path for path in sys.path if path.endswith("-packages")]
        (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        self.command = folder / "bin" / "tidegate"
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def install(self, wheel: Path) -> None:
        """Put this one in the place of the one that is there."""
        python = str(self.folder / "bin" / "python")
        options = ["--no-index", "--no-deps", "--force-reinstall", "--disable-pip-version-check", "--quiet"]
        run([sys.executable, "-m", "pip", "--python", python, "install", *options, str(wheel)])

    def run(self, *arguments: str) -> str:
        """What the command says; it must succeed."""
        done = subprocess.run(
            [str(self.command), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout
