"""What docstrings on top of files, and recipes, say of other files: those that are named exist, a package lists its
modules.

What must not live here: that there is a docstring (test_source.py), documentation of names (test_docs.py).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tests.test_source import SOURCE, files

NAMED = re.compile(r"(?<![\w./*-])((?:\w+/)*\w+\.(?:py|pyx|pxd|pyi|h))\b(?!\()")


def charter(path: Path) -> str:
    """The docstring or comment that a file opens with."""
    found = re.match(r'(?:#.*\n)*\s*(?:"""(.*?)"""|/\*(.*?)\*/)', path.read_text(encoding="utf-8"), re.DOTALL)
    return (found[1] or found[2]) if found else ""


def exists(name: str, path: Path) -> bool:
    """Whether a name leads to a file: from a folder of the package around the file that names it, or from tests."""
    around = [folder for folder in path.parents if folder.is_relative_to(SOURCE)]
    return any((folder / name).exists() for folder in (*around, ROOT, ROOT / "tests"))


@pytest.mark.parametrize("path", files("*.py", "*.pyx", "*.pxd", "*.h"), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_that_a_docstring_names_exist(path: Path) -> None:
    assert [name for name in NAMED.findall(charter(path)) if not exists(name, path)] == []


def recipes() -> dict[str, str]:
    """What CONTRIBUTING says of each change that comes often, by its heading."""
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Recipes")[2].partition("\n## ")[0]
    found = re.split(r"^\*\*(.+?)\*\*", section, flags=re.MULTILINE)[1:]
    return {title.rstrip(".,"): body for title, body in zip(found[::2], found[1::2], strict=True)}


@pytest.mark.parametrize("title", recipes())
def test_a_recipe_names_at_most_three_files_that_exist(title: str) -> None:
    """Beside its tests: the steps are numbered, and each begins with its file, or is the code that does something."""
    steps = re.findall(r"^\d\. (.+)", recipes()[title], re.MULTILINE)
    assert len(steps) <= 3
    files = re.findall(r"`((?:\w+/)+\w+\.\w+)`", recipes()[title])
    assert files
    assert [name for name in files if not (SOURCE / name).exists() and not (ROOT / name).exists()] == [
        "cli/NAME.py"
    ] * (title == "A subcommand")


def test_a_file_that_does_not_exist_is_found_out() -> None:
    here = SOURCE / "supervisor" / "supervisor.py"
    assert NAMED.findall("not here: a reload (operations.py), steering (sockets/reuseport.py)") == [
        "operations.py",
        "sockets/reuseport.py",
    ]
    assert exists("operations.py", here)
    assert exists("worker/main.py", here)
    assert not exists("steering.py", here)
    assert not exists("worker/pipe.py", here)


@pytest.mark.parametrize(
    "package",
    [
        *sorted(path for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE),
        ROOT / "tests/support/__init__.py",
    ],
    ids=str,
)
def test_a_package_lists_its_modules(package: Path) -> None:
    """Each with a line, and none that is not there."""
    text = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
    listed = set(re.findall(r"^    (\w+)/?\s{2,}\S", text, re.MULTILINE))
    folder = package.parent
    there = {path.stem for pattern in ("*.py", "*.pyx") for path in folder.glob(pattern)} - {"__init__"}
    there = {name for name in there if not name.startswith("test_")}
    there |= {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    defined = set(re.findall(r"^(?:def|class) (\w+)", package.read_text(encoding="utf-8"), re.MULTILINE))
    assert there <= listed, f"{package} does not list {', '.join(sorted(there - listed))}"
    assert listed <= there | defined, f"{package} lists {', '.join(sorted(listed - there - defined))}"
