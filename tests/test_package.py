"""What is shipped: an sdist and a wheel with what they need and no more, and an import that loads nothing early.

What must not live here: what the package does once it is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tests.support.patience import LONG

# Loaded when first used: each costs an importer of tidegate more than tidegate itself.
LAZY = {"asyncio", "click", "httptools", "msgspec", "prometheus_client", "rich", "setproctitle", "uvloop", "werkzeug"}

SOURCES = {".pyx", ".pxd", ".h"}
SHIPPED = {".py", ".pyi", ".html", ".js", ".typed"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's own files, without what builds and tests have left in the folder."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    copy = tmp_path_factory.mktemp("project")
    for name in filter(None, names):
        if (ROOT / name).exists():  # deleted, and not yet committed so
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def dist(project: Path) -> Path:
    """The folder with the sdist, and the wheel that was built from the sdist."""
    wheel(project, "build")
    return project / "dist"


def wheel(project: Path, stage: str) -> str:
    """What a stage of .ci/wheel writes."""
    done = subprocess.run(
        [project / ".ci" / "wheel", stage, project / "dist"],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def package_files(project: Path, suffixes: set[str]) -> set[str]:
    """The package's files of these kinds, as paths below src."""
    src = project / "src"
    return {str(path.relative_to(src)) for path in src.rglob("*") if path.suffix in suffixes}


@pytest.mark.slow
def test_wheel(project: Path, dist: Path) -> None:
    """The wheel has the package's files, the native modules, and nothing else."""
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    info = metadata.removesuffix("METADATA")
    extension = sysconfig.get_config_var("EXT_SUFFIX")
    native = {name.removesuffix(".pyx") + extension for name in package_files(project, {".pyx"})}
    about = {info + name for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")}
    assert names - about == package_files(project, SHIPPED) | native
    assert fields["Requires-Python"] == ">=3.11"
    assert "python -m venv" in fields.get_payload() or "python3 -m venv" in fields.get_payload()


@pytest.mark.slow
def test_sdist(project: Path, dist: Path) -> None:
    """The sdist has the sources, and nothing else."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if not sdist.getmember(name).isdir()}
    package = {f"src/{name}" for name in package_files(project, SHIPPED | SOURCES)}
    about = {"MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    generated = {name for name in names if re.match(r"src/tidegate\.egg-info/", name)}
    assert names - generated == package | about


@pytest.mark.slow
def test_wheel_needs_no_compiler(project: Path, dist: Path) -> None:
    """It is for every Linux of its architecture, and in an environment of its own it passes the tests."""
    (path,) = dist.glob("*.whl")
    assert re.search(r"-manylinux[\w.]+\.whl$", path.name)
    assert re.search(r"^=+ \d{3,} passed", wheel(project, "test"), re.MULTILINE)


def test_import_loads_nothing_early() -> None:
    script = "import sys; before = set(sys.modules); import tidegate; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tidegate" in loaded
    assert loaded & LAZY == set()


def test_every_public_name_can_be_had() -> None:
    script = "import tidegate; [getattr(tidegate, name) for name in tidegate.__all__]; print(len(tidegate.__all__))"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40
    assert done.stderr == ""
