"""The coverage-guided fuzzer, for as long as a test may take: from the kept inputs, so many runs of each target.

It starts from the same seed each time, so that a failure comes again. Longer runs are made by hand: see guided. What
must not live here: what the targets check.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.core import rebuild
from tests.fuzz.targets import TARGETS
from tests.fuzz.wires import TIMES
from tests.support.harness import ROOT, require
from tests.support.patience import LONG, PATIENCE

RUNS = 40_000  # some seconds
COUNTERS = ROOT / "tests" / "fuzz" / "counters.h"


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose native code counts what runs."""
    if sys.version_info >= (3, 14):
        pytest.skip("atheris knows the bytecode of no later Python than 3.13")
    require(find_spec("atheris"), "the Python package atheris")
    rebuild.need_a_compiler()
    flags = ["-O1", "-fsanitize-coverage=trace-pc", "-include", str(COUNTERS)]
    return rebuild.copy(tmp_path_factory.mktemp("fuzz") / "project", flags)


def fuzz(copied: Path, target: str, *arguments: str, runs: int) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer; what it keeps, and an input that fails, stay in the copy."""
    kept = copied / "kept" / target
    kept.mkdir(parents=True)
    options = ["-seed=1", "-max_len=1024", f"-timeout={PATIENCE:.0f}", f"-runs={runs}"]
    options.append(f"-artifact_prefix={copied}/failed-")
    command = [sys.executable, "-m", "tests.fuzz.guided", target, str(kept), *arguments, *options]
    done = rebuild.run(copied, command, timeout=LONG * max(1, TIMES))
    assert "without counters" not in done.stdout
    return done


@pytest.mark.slow
@pytest.mark.timeout(1800 * max(1, TIMES))
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target: str, counting: Path) -> None:
    done = fuzz(counting, target, f"tests/fuzz/corpus/{target}", runs=int(RUNS * TIMES))
    assert done.returncode == 0, done.stdout[-6000:]
    assert "\tDONE " in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800 * max(1, TIMES))
def test_what_is_there_is_found(counting: Path) -> None:
    """Without a single kept input, and within as many runs."""
    done = fuzz(counting, "canary", runs=10 * RUNS)
    assert done.returncode != 0
    assert "the canary died" in done.stdout
