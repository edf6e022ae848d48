"""Nonsense for every object of a native module, for test_nonsense.py.

What must not live here: what calls do that are meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

LEFT_OUT = {"end_with_parent", "__init_subclass__", "__subclasshook__", "__class__", "__new__"}
"""What does to this process what it says, or waits for what never comes."""


class Odd:
    """Has nothing that it says it has."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)

    def __index__(self) -> int:
        return 2**70

    def __len__(self) -> int:
        return -1


class Obliging:
    """Has everything, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def values() -> list[Any]:
    """Arguments, few of which are right anywhere."""
    numbers = [0, 1, -1, 2**31, 2**63, 2**70, -(2**63), 3.5, float("nan")]
    frames = [b"\x81\x81\0\0\0\0a", b"\xc1\x85\0\0\0\0\x01\x02\x03\x04\x05", b"\x01\x80\0\0\0\0"]
    data = ["", "x", b"", b"x" * 70000, bytearray(b"ab"), memoryview(b"abcdef")[::2]]
    containers = [(), [], [None], {}, {"a": 1}, range(3)]
    others = [None, True, object(), Odd(), Obliging(), asyncio.new_event_loop(), asyncio.StreamReader]
    callables = [type, ValueError, ValueError("x"), lambda *arguments: None]
    return [*numbers, *frames, *data, *containers, *others, *callables]


class Caller:
    """Calls whatever can be called in a module with what it finds.

    Parameters:
        module: a module of native code.
        chance: what decides.
    """

    def __init__(self, module: Any, chance: random.Random) -> None:
        self.chance = chance
        own = vars(module).items()
        self.classes = [found for _, found in own if isinstance(found, type) and found.__module__ == module.__name__]
        self.functions = [
            found
            for name, found in own
            if type(found).__name__.endswith("function_or_method") and callable(found) and name not in LEFT_OUT
        ]
        self.values = values()
        self.objects = list(self.made())
        self.values += self.objects

    def made(self) -> Iterator[Any]:
        """Objects as they come, and with wrong arguments, without their __init__()."""
        for one in self.classes:
            for arguments in ((), (None,), tuple(self.chance.choices(self.values, k=3))):
                with contextlib.suppress(BaseException):
                    yield one.__new__(one, *arguments)

    def call_everything(self) -> None:
        for thing in [*self.objects, *self.classes]:
            names = [name for name in dir(thing) if name not in LEFT_OUT]
            self.chance.shuffle(names)
            for name in names:
                self.use(thing, name)
        for function in self.functions:
            self.attempt(function, self.arguments())

    def arguments(self) -> Sequence[Any]:
        return self.chance.choices(self.values, k=self.chance.randrange(5))

    def use(self, thing: Any, name: str) -> None:
        """Set an attribute perhaps, and call what it has."""
        with contextlib.suppress(BaseException):
            if self.chance.random() < 0.2 and not name.startswith("__"):
                setattr(thing, name, self.chance.choice(self.values))
        with contextlib.suppress(BaseException):
            value = getattr(thing, name)
            if callable(value):
                self.attempt(value, self.arguments())

    def attempt(self, function: Any, arguments: Sequence[Any]) -> None:
        with contextlib.suppress(BaseException):
            result = function(*arguments)
            for name in ("send", "throw", "close"):
                if type(result).__module__.startswith("tidegate") and hasattr(result, name):
                    with contextlib.suppress(BaseException):
                        getattr(result, name)(self.chance.choice(self.values))


def nonsense(module: str, seed: str, rounds: str) -> None:
    """Call everything in a module so many times, and print that nothing has happened."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    caller = Caller(importlib.import_module(f"tidegate._core.{module}"), random.Random(int(seed)))
    assert caller.classes or caller.functions, "there is nothing to call"
    for _ in range(int(rounds)):
        caller.call_everything()
    del caller
    gc.collect()
    print("unharmed")
