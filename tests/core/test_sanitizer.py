"""The native code under AddressSanitizer and UndefinedBehaviorSanitizer, while the tests of it run.

Everything is built and run in a temporary copy of the project. To look at a finding by hand, see `SETTINGS`: build with
these flags, preload libasan, and run one test. What must not live here: tests of what the native code does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.core import rebuild

FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",  # the first finding ends the run
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-UNDEBUG",  # the assertions in CPython's headers: they check the kind of each object
)
SETTINGS = {
    "PYTHONMALLOC": "malloc",  # each object in a block of its own, with a fence around it
    "PYTHONDEVMODE": "0",  # or it is pymalloc's debug hooks that fence
    # CPython does not free all that it has at its end, which is no leak of ours; tests count what is left behind.
    "ASAN_OPTIONS": "detect_leaks=0:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
# Those of the native code itself, and those that throw anything at it, on sockets too.
TESTS = ("tests/core", "tests/fuzz", "tests/asyncio/test_broadcast.py", "tests/asyncio/test_chaos.py")
FOUND = ("ERROR: AddressSanitizer", "runtime error:", "AddressSanitizer:DEADLYSIGNAL")

# Code with a mistake, to see that the sanitizers see it.
CANARY = """
#include <stdlib.h>
#include <string.h>
#include <limits.h>
int overrun(int n) { char *p = malloc(n); p[n] = 1; n = p[n]; free(p); return n; }
int overflow(int n) { return INT_MAX - 1 + n; }
int null(int n) { char *p = n > 100 ? (char *)&n : NULL; memcpy(&n, p, n > 100); return n; }
"""


def preload() -> str:
    """The path of libasan, which must be loaded before Python."""
    done = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = Path(done.stdout.strip())
    assert path.is_absolute(), "gcc has no libasan"
    return str(path)


def report(output: str) -> str:
    """What a sanitizer said, or the end of the output."""
    places = [output.find(mark) for mark in FOUND if mark in output]
    return output[max(0, min(places) - 200) :][:12_000] if places else output[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize("function", ["overrun", "overflow", "null"])
def test_sanitizers_find_mistakes(function: str, tmp_path: Path) -> None:
    rebuild.need_a_compiler()
    source = tmp_path / "canary.c"
    source.write_text(CANARY)
    library = tmp_path / "canary.so"
    subprocess.run(["gcc", "-shared", "-fPIC", *FLAGS, str(source), "-o", str(library)], check=True)
    call = f"import ctypes; ctypes.CDLL({str(library)!r}).{function}(7)"
    done = rebuild.run(tmp_path, [sys.executable, "-c", call], LD_PRELOAD=preload(), **SETTINGS)
    assert done.returncode != 0
    assert any(mark in done.stdout for mark in FOUND), done.stdout


@pytest.mark.slow
def test_native_code_is_clean(tmp_path: Path) -> None:
    rebuild.need_a_compiler()
    copied = rebuild.copy(tmp_path / "project", FLAGS)
    done = rebuild.run_tests(copied, *TESTS, LD_PRELOAD=preload(), **SETTINGS)
    assert not any(mark in done.stdout for mark in FOUND), report(done.stdout)
    assert done.returncode == 0, report(done.stdout)
