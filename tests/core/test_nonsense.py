"""No native object crashes the interpreter, however it was made and whatever its methods are given.

Each module has a process of its own, which makes objects by `__new__` alone and calls whatever can be called on them
with nonsense; it may raise anything, and must end by itself. What must not live here: what calls do that are meant.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tests.support.patience import PATIENCE
from tidegate import _core

MODULES = sorted(module.name for module in pkgutil.iter_modules(_core.__path__))

FIND = """
import importlib, sys
module = importlib.import_module("tidegate._core." + sys.argv[1])
classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
functions = [value for name, value in vars(module).items() if callable(value) and not isinstance(value, type)
             and type(value).__name__.endswith("function_or_method")
             and name not in LEFT_OUT]
"""

# What does to this process what it says, or waits for what never comes.
CALL = (
    """
LEFT_OUT = {"end_with_parent", "__init_subclass__", "__subclasshook__", "__class__", "__new__"}
"""
    + FIND
    + """
import asyncio, contextlib, faulthandler, gc, random, warnings
faulthandler.enable()
warnings.simplefilter("ignore")
sys.unraisablehook = lambda unraisable: None
chance = random.Random(int(sys.argv[2]))

class Odd:
    def __getattr__(self, name): raise ValueError(name)
    def __index__(self): return 2**70
    def __len__(self): return -1

class Mock:
    def __getattr__(self, name): return lambda *arguments, **options: None

loop = asyncio.new_event_loop()
VALUES = [None, 0, 1, -1, 2**31, 2**63, 2**70, -2**63, 3.5, float("nan"), "", "x", b"", b"x" * 70000, bytearray(b"ab"),
          memoryview(b"abcdef")[::2], b"\\x81\\x81\\0\\0\\0\\0a", b"\\xc1\\x85\\0\\0\\0\\0\\x01\\x02\\x03\\x04\\x05",
          b"\\x01\\x80\\0\\0\\0\\0", (), [], [None], {}, {"a": 1}, object(), Odd(), Mock(), loop, type,
          ValueError, ValueError("x"), lambda *arguments: None, True, range(3), asyncio.StreamReader]

def made():
    for one in classes:
        for arguments in ((), (None,), tuple(chance.choices(VALUES, k=3))):
            with contextlib.suppress(BaseException):
                yield one.__new__(one, *arguments)

def attempt(function, arguments):
    with contextlib.suppress(BaseException):
        result = function(*arguments)
        for name in ("send", "throw", "close"):
            if type(result).__module__.startswith("tidegate") and hasattr(result, name):
                with contextlib.suppress(BaseException):
                    getattr(result, name)(chance.choice(VALUES))

objects = list(made())
VALUES += objects
for _ in range(int(sys.argv[3])):
    for thing in [*objects, *classes]:
        names = [name for name in dir(thing) if name not in LEFT_OUT]
        chance.shuffle(names)
        for name in names:
            with contextlib.suppress(BaseException):
                if chance.random() < 0.2 and not name.startswith('__'):
                    setattr(thing, name, chance.choice(VALUES))
            with contextlib.suppress(BaseException):
                value = getattr(thing, name)
                if callable(value):
                    attempt(value, chance.choices(VALUES, k=chance.randrange(5)))
    for function in functions:
        attempt(function, chance.choices(VALUES, k=chance.randrange(5)))
del objects
gc.collect()
print("unharmed")
"""
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("module", MODULES)
def test_nonsense(module: str, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, module, str(seed), "40"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "unharmed\n"), done.stderr[-2000:]
