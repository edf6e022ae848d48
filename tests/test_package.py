"""What is shipped: an sdist and a wheel with what they need and no more, and an import that loads nothing early.

What must not live here: what the package does once it is installed.
"""

from __future__ import annotations

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

from tests.harness import ROOT

# Loaded when first used: each costs an importer of tidegate more than tidegate itself.
LAZY = {"asyncio", "click", "httptools", "msgspec", "prometheus_client", "rich", "setproctitle", "uvloop", "werkzeug"}

SOURCES = {".pyx", ".pxd", ".h"}
SHIPPED = {".py", ".pyi", ".html", ".typed"}


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
    build = [sys.executable, "-m", "build", "--outdir", str(project / "dist"), str(project)]
    done = subprocess.run(build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return project / "dist"


def package_files(project: Path, suffixes: set[str]) -> set[str]:
    """The package's files of these kinds, as paths below src."""
    src = project / "src"
    return {str(path.relative_to(src)) for path in src.rglob("*") if path.suffix in suffixes}


@pytest.mark.slow
def test_wheel(project: Path, dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(wheel.read(metadata).decode())
    info = metadata.removesuffix("METADATA")
    extension = sysconfig.get_config_var("EXT_SUFFIX")
    native = {name.removesuffix(".pyx") + extension for name in package_files(project, {".pyx"})}
    about = {info + name for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")}
    assert names - about == package_files(project, SHIPPED) | native
    assert fields["Requires-Python"] == ">=3.11"
    assert "python -m venv" in fields.get_payload() or "python3 -m venv" in fields.get_payload()


@pytest.mark.slow
def test_sdist(project: Path, dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames() if not sdist.getmember(name).isdir()}
    package = {f"src/{name}" for name in package_files(project, SHIPPED | SOURCES)}
    about = {"MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    generated = {name for name in names if re.match(r"src/tidegate\.egg-info/", name)}
    assert names - generated == package | about


@pytest.mark.slow
def test_installed_wheel_runs(dist: Path, tmp_path: Path) -> None:
    """The wheel alone, without the project's folder: its command answers, and its native code loads."""
    (wheel,) = dist.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    script = "import tidegate.asyncio.server, tidegate; print(tidegate.__file__, tidegate.__version__)"
    done = run_python("-c", script, path=unpacked, folder=tmp_path)
    assert done.startswith(str(unpacked))
    assert "serve" in run_python("-m", "tidegate", "--help", path=unpacked, folder=tmp_path)


def run_python(*arguments: str, path: Path, folder: Path) -> str:
    """What an interpreter prints that finds `path` before anything installed."""
    command = [sys.executable, *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
