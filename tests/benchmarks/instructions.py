"""How many instructions the server runs for a message and a handshake: ``python -m tests.benchmarks.instructions``.

    --record    write them into instructions.json, for this version of CPython

Callgrind counts those in user space of the server, which echo.py is with another process as its client; twice, so that
what all the rest takes cancels out. They are the same on a busy machine, to a thousandth. They are others by another
build of CPython, another compiler, C library or event loop: the record names those that it is of.

What must not live here: judging them (test_instructions.py).
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.support.patience import LONG
from tidegate._core import channel

PROGRAM = Path(__file__).with_name("echo.py")
RECORD = Path(__file__).with_name("instructions.json")
COMMAND = "python -m tests.benchmarks.instructions --record"

# What is counted -> messages in flight on the connection, and how many messages in the first run and the second.
COUNTED = {
    "echo-1": (1, 1_000, 5_000),
    "echo-16": (16, 16_000, 64_000),
    "handshake": (0, 100, 600),
}


def interpreter() -> str:
    """The version of CPython that a record is for: 3.13."""
    return ".".join(map(str, sys.version_info[:2]))


def tools() -> dict[str, str]:
    """What the counts depend on beside our code."""
    compiler = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(channel.__file__).read_bytes())
    return {
        "CPython": f"{platform.python_version()} by {platform.python_compiler()}",
        "compiler": compiler[0].decode() if compiler else "unknown",
        "libc": " ".join(platform.libc_ver()),
        "uvloop": metadata.version("uvloop"),
        "machine": platform.machine(),
    }


def collected(folder: Path, *arguments: object) -> int:
    """Instructions of a whole run."""
    done = subprocess.run(
        [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'callgrind'}"),
            *(sys.executable, str(PROGRAM), *map(str, arguments)),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1])


def count(name: str) -> int:
    """Those of a message, or a handshake: what more of them take more."""
    depth, few, many = COUNTED[name]
    with tempfile.TemporaryDirectory() as folder:
        first, second = (collected(Path(folder), number, depth, "lockstep") for number in (few, many))
    return round((second - first) / (many - few))


def recorded() -> dict[str, Any]:
    """Version of CPython -> its tools and counts."""
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def main() -> None:
    counts = {}
    for name in COUNTED:
        counts[name] = count(name)
        print(f"{name:10s} {counts[name]:>8,}", flush=True)
    if sys.argv[1:] == ["--record"]:
        found = {**recorded(), interpreter(): {"tools": tools(), "instructions": counts}}
        RECORD.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
