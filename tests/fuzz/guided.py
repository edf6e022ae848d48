"""A fuzzer that is led by which code its inputs reach: Python's branches by atheris, those of native code by counters.

    python -m tests.fuzz.guided channel FOLDER tests/fuzz/corpus/channel -max_total_time=3600

FOLDER collects what it finds worth keeping; other arguments are libFuzzer's. Native code counts only if it was built
for that (test_guided), otherwise it is fuzzed blindly. What must not live here: what is tried (targets).
"""

from __future__ import annotations

import ctypes
import importlib
import sys

import atheris

from tests.support.wire import CLOSE

NATIVE = ("channel", "deflate", "messages", "parser", "waiter")
COUNTERS = 4096  # of each module, as in counters.h


def count_native_code() -> None:
    """Tell libFuzzer where the native modules count, if they do."""
    fuzzer = ctypes.CDLL(importlib.import_module("atheris.core_with_libfuzzer").__file__)
    for name in NATIVE:
        module = ctypes.CDLL(importlib.import_module(f"tidegate._core.{name}").__file__)
        try:
            counters = ctypes.addressof((ctypes.c_uint8 * COUNTERS).in_dll(module, "tg_counters"))
            places = ctypes.addressof((ctypes.c_size_t * (2 * COUNTERS)).in_dll(module, "tg_places"))
        except ValueError:
            print(f"{name} was built without counters", file=sys.stderr)
            continue
        fuzzer.__sanitizer_cov_8bit_counters_init(ctypes.c_void_p(counters), ctypes.c_void_p(counters + COUNTERS))
        fuzzer.__sanitizer_cov_pcs_init(
            ctypes.c_void_p(places), ctypes.c_void_p(places + 2 * COUNTERS * ctypes.sizeof(ctypes.c_size_t))
        )


def canary(data: bytes) -> None:
    """A target with a mistake, in compressed messages that become too long in a later fragment: to be found."""
    from tests.fuzz.targets import subject_of

    subject = subject_of(data)
    assert (CLOSE, 1009) not in subject.model.answers or not subject.model.compressed, "the canary died"


def main(name: str, arguments: list[str]) -> None:
    with atheris.instrument_imports(include=["tidegate"]):
        from tests.fuzz.targets import TARGETS
    target = canary if name == "canary" else TARGETS[name]
    atheris.Setup([sys.argv[0], *arguments], target, internal_libfuzzer=True)
    count_native_code()
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
