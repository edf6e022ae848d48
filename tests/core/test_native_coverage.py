"""Every line of the native code runs in the tests: counted by gcov in a copy of the project.

gcov counts lines of C, and Cython tells in comments which line of the .pyx each piece of C is of. Nothing in the code
is changed for that, unlike with Cython's line tracing, which needs frames where there are none: in slots that C calls,
and where the StopIteration of a message must be seen by nobody. The headers are counted as well.

A line that cannot run in these tests is in EXCLUDED, with the reason. What must not live here: other tests.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core import rebuild

NATIVE = Path("src/tidegate/_core")
MARK = re.compile(r'\s*/\* "tidegate/_core/(\w+\.pyx)":(\d+)$').match

# Whether these count is no matter: a child that is killed, or ends by os._exit(), does not tell what it ran.
FORKED = "in forked children"
NO_MEMORY = "of malloc() and realloc(), which no test makes fail"
ABSTRACT = "every class of this kind that is used has its own"

# What runs all of it; tests with sockets add minutes and nothing else.
TESTS = ("tests/core", "tests/fuzz", "tests/extensions", "tests/asyncio/test_broadcast.py")

PLAIN_SUM = (
    "static inline uint32_t tg_crc32c_plain(uint32_t crc, const uint8_t *p, size_t n) {",
    "while (n--) {",
    "crc ^= *p++;",
    "crc = table[crc & 15] ^ (crc >> 4);",
    "return crc;",
)

# File -> the text of a line -> why no test runs it.
EXCLUDED = {
    "wire.pyx": {
        "key_pool_left = 0": FORKED,
    },
    "inbox.pyx": {
        "raise MemoryError": NO_MEMORY,
        "cdef int find_room(self) except -1:": ABSTRACT,
    },
    "counters.pyx": {
        "raise MemoryError()": "of calloc(), which no test makes fail",
        "if _current._owner is not None:": FORKED,
        "use(Row())": FORKED,
    },
    "poller.pyx": {
        "cdef int on_ready(self, uint32_t events) except -1:": ABSTRACT,
        "cdef int go_on(self) except -1:": ABSTRACT,
        "raise NotImplementedError": ABSTRACT,
    },
    "stream.pyx": {
        "cdef int receive(self, bytes buffer, Py_ssize_t size, Py_ssize_t placed) except -1:": ABSTRACT,
        "raise NotImplementedError": ABSTRACT,
    },
    "histogram.pyx": {
        "raise MemoryError": NO_MEMORY,
    },
    "load.pyx": {
        "raise MemoryError": NO_MEMORY,
    },
    "scanner.pyx": {
        "cdef int control_received(self, uint8_t opcode, const uint8_t *p, int n) except -1:": ABSTRACT,
        "cdef int wrong(self, str reason) except -1:": ABSTRACT,
        "raise NotImplementedError": ABSTRACT,
    },
    "timer.pyx": {
        "raise_error(descriptor)": "without descriptors there are no connections either",
        "cdef int came(self) except -1:": ABSTRACT,
        "raise NotImplementedError": ABSTRACT,
    },
    "turns.pyx": {
        "task = current_task_of(loop)": "for Python 3.14",
        "return NULL if task is None else <PyObject *> task": "for Python 3.14",
        "cdef int take_turn(self, double share) except -1:": ABSTRACT,
        "raise NotImplementedError": ABSTRACT,
    },
    "crc32c.h": dict.fromkeys(PLAIN_SUM, "for processors without the instruction"),
    "hub_link.pyx": {
        "raise MemoryError": NO_MEMORY,
    },
    "journal.pyx": {
        "raise MemoryError": NO_MEMORY,
        "except (OSError, ValueError):": "for systems without /proc",
        "return 0": "for systems without /proc",
        "memcpy(record, PyBytes_AS_STRING(whole), self.fault)": FORKED,
        "os.kill(os.getpid(), signal.SIGKILL)": FORKED,
    },
    "switch.pyx": {
        "raise MemoryError": NO_MEMORY,
        "raise OSError(errno, os.strerror(errno))": "of epoll, for which there is always a descriptor here",
    },
    "topic.pyx": {
        "raise MemoryError": NO_MEMORY,
    },
    "waiter.h": {
        'PyErr_Format(PyExc_ImportError, "%s of asyncio.Future is not an attribute in C", name);': "for another Python",
        "Py_CLEAR(found);": "for another Python",
    },
    "writer.pyx": {
        "raise MemoryError": NO_MEMORY,
        "cdef bint more_to_handle(self) noexcept:": ABSTRACT,
        "return False": ABSTRACT,
    },
}


def gcov(copied: Path) -> Iterator[tuple[str, dict[str, dict[int, int]]]]:
    """Of each module: its name, and by file how often each line ran."""
    for data in sorted(copied.glob(f"build/*/{NATIVE}/*.gcda")):
        command = ["gcov", "--json-format", "--stdout", str(data)]
        done = subprocess.run(command, cwd=copied, capture_output=True, text=True, check=True)
        files: dict[str, dict[int, int]] = defaultdict(dict)
        for file in json.loads(done.stdout)["files"]:
            counts = files[file["file"]]
            for line in file["lines"]:
                number = line["line_number"]
                counts[number] = counts.get(number, 0) + line["count"]
        yield data.stem, files


def pyx_counts(copied: Path, module: str, counts: dict[int, int]) -> dict[int, int]:
    """How often each line of a .pyx ran, from how often the lines of its C did."""
    found: dict[int, int] = {}
    current = None
    for number, text in enumerate((copied / NATIVE / f"{module}.c").read_text().split("\n"), 1):
        mark = MARK(text)
        if mark is not None:
            current = int(mark[2]) if mark[1] == f"{module}.pyx" else None
        elif text.startswith("}") or "function exit code" in text:
            current = None
        elif current is not None and number in counts:
            found[current] = max(found.get(current, 0), counts[number])
    return found


def measure(copied: Path) -> dict[str, dict[int, int]]:
    """File of the native code -> line -> how often it ran."""
    measured: dict[str, dict[int, int]] = defaultdict(dict)
    for module, files in gcov(copied):
        for name, counts in files.items():
            path = Path(name)
            if path.name == f"{module}.c":
                counts, path = pyx_counts(copied, module, counts), NATIVE / f"{module}.pyx"
            if path.suffix not in (".pyx", ".h") or path.is_absolute():
                continue
            lines = measured[path.name]
            for number, count in counts.items():
                lines[number] = lines.get(number, 0) + count
    return measured


@pytest.mark.slow
def test_every_native_line_runs(tmp_path: Path) -> None:
    rebuild.need_a_compiler("gcov")
    copied = rebuild.copy(tmp_path / "project", ["--coverage", "-O0"])
    done = rebuild.run_tests(copied, *TESTS)
    assert done.returncode in (0, 1), done.stdout[-4000:]  # 1: a test failed, which is not what this one is about
    measured = measure(copied)
    modules = {path.name for path in (copied / NATIVE).glob("*.pyx")}
    assert modules <= set(measured), "a module that no test imports"
    missed, excused = [], set()
    for name, counts in sorted(measured.items()):
        assert len(counts) >= (5 if name.endswith(".pyx") else 1), f"{name} was not measured"
        source = (copied / NATIVE / name).read_text().split("\n")
        for number, count in sorted(counts.items()):
            text = source[number - 1].partition("  #")[0].strip()
            if count:
                continue
            if text in EXCLUDED.get(name, {}):
                excused.add((name, text))
            else:
                missed.append(f"{name}:{number}: {text}")
    assert not missed, "native lines that no test runs:\n" + "\n".join(missed)
    listed = {(name, text) for name, lines in EXCLUDED.items() for text, why in lines.items() if why is not FORKED}
    unused = listed - excused
    assert not unused, f"lines that need no excuse any more: {sorted(unused)}"
