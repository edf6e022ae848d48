"""The Autobahn test suite as a fixture.

What must not live here: how it is installed and run (autobahn.py), and what it must yield (cases.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import autobahn
from tests.support.harness import require


@pytest.fixture(scope="session")
def wstest() -> Path:
    """The suite's command; the first use installs it, in some 20 seconds."""
    interpreter = autobahn.python2()
    require(interpreter, "a Python 2.7 for the Autobahn test suite (TIDEGATE_PYTHON2, PATH or pyenv)")
    assert interpreter is not None
    return autobahn.install(interpreter)
