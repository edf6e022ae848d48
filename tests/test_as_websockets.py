"""Tests of tidegate.as_websockets: libraries that import `websockets` get tidegate, and their programs run.

What must not live here: the programs themselves (cases_as_websockets.py).
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import cases_as_websockets as cases
from tests.support import programs
from tests.support.patience import PATIENCE
from tidegate.as_websockets import MODULES, RELEASE, WHY_NOT


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidegate.as_websockets", *arguments],
        env=programs.environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def run(case: Callable[[], None]) -> str:
    """What a program prints that the command runs."""
    done = command("-m", programs.__name__, case.__module__, case.__qualname__)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_line_of_a_program() -> None:
    done = programs.run(cases.own_start)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{RELEASE} {RELEASE} tidegate.asyncio.client\n"


def test_a_program_that_has_imported_it_is_told() -> None:
    done = programs.run(cases.too_late)
    assert done.returncode == 1
    assert "websockets is imported already: call tidegate.as_websockets.install() before that" in done.stderr


def test_all_names_are_ours() -> None:
    assert programs.run(cases.all_names, python=("-W", "ignore")).stdout == "0\n"


def test_older_modules() -> None:
    done = programs.run(cases.older_modules)
    assert done.stdout == "tidegate.asyncio.client tidegate.asyncio.server\n"


def test_what_there_is_not_says_so() -> None:
    assert programs.run(cases.missing_modules).stdout.splitlines() == [
        f"tidegate, which is imported as websockets, has no websockets.sync{WHY_NOT['sync']}",
        "tidegate, which is imported as websockets, has no websockets.cli",
        "tidegate, which is imported as websockets, has no websockets.speedups",
    ]


def test_a_library_that_serves_and_connects() -> None:
    assert run(cases.language_server).splitlines() == ["tidegate.asyncio.server echo", "Hello"]


def test_a_library_that_connects_and_catches() -> None:
    lines = run(cases.graphql_client).splitlines()
    assert lines == ["{'hello': 'world'}", "tidegate.asyncio.client", "TransportConnectionFailed"]


def test_a_file_with_arguments(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("import websockets\nname = websockets.serve.__module__\n")
    (tmp_path / "program.py").write_text(
        "import sys\nimport neighbour\n"
        "if __name__ == '__main__':\n    print(neighbour.name, *sys.argv)\n    sys.exit(3)\n"
    )
    path = str(tmp_path / "program.py")
    done = command(path, "--port", "1", "-m")
    assert (done.returncode, done.stdout) == (3, f"tidegate.asyncio.server {path} --port 1 -m\n")


@pytest.mark.parametrize(
    ("arguments", "error"), [([], "required: PROGRAM"), (["nothing.py"], "there is no file nothing.py")]
)
def test_a_program_that_there_is_not(arguments: list[str], error: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert error in done.stderr


def test_the_release_is_of_the_library_that_is_compared() -> None:
    assert RELEASE.partition(".")[0] == importlib.metadata.version("websockets").partition(".")[0]


def test_every_module_that_both_have_is_there() -> None:
    from tests.test_parity import MODULES as COMPARED

    assert set(COMPARED) - {"", "version"} <= set(MODULES)
