"""No native object crashes the interpreter, however it was made and whatever its methods are given.

Each module has a process of its own, which makes objects by `__new__` alone and calls whatever can be called on them
with nonsense; it may raise anything, and must end by itself.

What must not live here: the nonsense (cases_nonsense.py), what calls do that are meant.
"""

from __future__ import annotations

import pkgutil

import pytest

from tests.core.cases_nonsense import nonsense
from tests.support import programs
from tidegate import _core

# All but the one whose only function would do to its process what it says.
MODULES = sorted({module.name for module in pkgutil.iter_modules(_core.__path__)} - {"parent"})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("module", MODULES)
def test_nonsense(module: str, seed: int) -> None:
    """Calls with arguments of any type raise, and do not harm the process."""
    done = programs.run(nonsense, module, str(seed), "40")
    assert (done.returncode, done.stdout) == (0, "unharmed\n"), done.stderr[-2000:]
