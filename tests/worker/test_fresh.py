"""Imports of what is there now: edits of one size within one second, folders that come later.

What must not live here: what is said of what cannot be imported (test_loader.py).
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE

PRELUDE = """
import os, py_compile, sys
from tests.support.patience import PATIENCE
from tidegate.worker.fresh import refresh
sys.path.insert(0, os.getcwd())
"""


def run(program: str, folder: Path) -> str:
    """What a program prints, with a cache of bytecode as an interpreter has it by default."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONDONTWRITE")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def stale(folder: Path, name: str = "shop", age: float = 0, **options: object) -> Path:
    """A module whose bytecode is of an edit before the last one, in the same second; it says "new"."""
    source = folder / f"{name}.py"
    source.write_text("word = 'old'\n")
    second = int(os.stat(source).st_mtime) - age
    os.utime(source, (second, second))
    cached = Path(str(py_compile.compile(str(source), **options)))  # type: ignore[arg-type]
    source.write_text("word = 'new'\n")
    os.utime(source, (second + 0.9, second + 0.9))
    os.utime(cached, (second + 0.5, second + 0.5))
    return cached


def test_the_interpreter_takes_what_is_stale(tmp_path: Path) -> None:
    """Should it ever stop doing so, the module is not needed any more."""
    stale(tmp_path)
    assert run("import shop; print(shop.word)", tmp_path) == "old\n"


@pytest.mark.parametrize("age", [0, 1000])
def test_what_is_stale_is_not_taken_and_replaced(tmp_path: Path, age: float) -> None:
    cached = stale(tmp_path, age=age)
    assert run("refresh(); import shop; print(shop.word)", tmp_path) == "new\n"
    assert cached.read_bytes().find(b"new") > 0
    assert run("import shop; print(shop.word)", tmp_path) == "new\n"


def test_in_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "market").mkdir()
    stale(tmp_path / "market", "__init__")
    stale(tmp_path / "market")
    assert run("refresh(); import market.shop; print(market.word, market.shop.word)", tmp_path) == "new new\n"


def test_bytecode_of_a_later_time_is_taken(tmp_path: Path) -> None:
    cached = stale(tmp_path)
    written = os.stat(tmp_path / "shop.py").st_mtime + 60
    os.utime(cached, (written, written))
    assert run("refresh(); import shop; print(shop.word)", tmp_path) == "old\n"  # what it holds is nobody's doubt


def test_bytecode_that_is_valid_by_a_hash_is_taken(tmp_path: Path) -> None:
    cached = stale(tmp_path, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    before = cached.read_bytes()
    assert run("refresh(); import shop; print(shop.word)", tmp_path) == "old\n"
    assert cached.read_bytes() == before


def test_bytecode_without_a_source_is_taken(tmp_path: Path) -> None:
    cached = stale(tmp_path)
    cached.rename(tmp_path / "shop.pyc")
    (tmp_path / "shop.py").unlink()
    assert run("refresh(); import shop; print(shop.word)", tmp_path) == "old\n"


def test_a_folder_that_was_not_there(tmp_path: Path) -> None:
    program = """
        sys.path.insert(0, os.path.abspath("later"))
        try:
            import shop
        except ModuleNotFoundError:
            os.mkdir("later")
            open("later/shop.py", "w").write("word = 'there'")
        refresh()
        import shop
        print(shop.word)
    """
    assert run(program, tmp_path) == "there\n"


def test_it_may_be_asked_for_again(tmp_path: Path) -> None:
    stale(tmp_path)
    program = "refresh(); hooks = len(sys.path_hooks); refresh(); print(len(sys.path_hooks) - hooks)"
    assert run(program, tmp_path) == "0\n"


def test_native_modules_and_archives_are_found(tmp_path: Path) -> None:
    assert importlib.util.find_spec("tidegate._core.wire") is not None
    program = """
        import zipfile
        with zipfile.ZipFile("shop.zip", "w") as archive:
            archive.writestr("shop.py", "word = 'in an archive'")
        sys.path.insert(0, "shop.zip")
        refresh()
        import shop, tidegate._core.wire, _ssl
        print(shop.word)
    """
    assert run(program, tmp_path) == "in an archive\n"
