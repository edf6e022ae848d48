"""The shape of the source: who may import whom, how long things are, what each file says of itself, what tests it.

The tables are the design's floors in a form that fails. To change a floor is to change a table, with a reason.
What must not live here: anything about what the code does.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tests.support.patience import LONG

SOURCE = ROOT / "src" / "tidegate"
LINES_OF_A_FILE = 600
LINES_OF_A_NATIVE_FILE = 450
LINES_OF_A_TEST_FILE = 700
LINES_OF_A_FUNCTION = 80

# The root of the package, in floors; each folder is a floor of its own.
ROOT_FLOORS = {
    "words": {
        *(
            "typing",
            "version",
            "_exceptions",
            "datastructures",
            "frames",
            "networks",
            "app",
            "_compat",
            "redaction",
            "text",
            "environment",
            "defaults",
            "channels",
        )
    },
    "grammar": {"exceptions", "uri", "headers", "http11", "proxy", "forwarded", "proxy_protocol", "extensions"},
    "chapters": {"server", "client", "closing", "keepalive", "limits", "protocol"},
    "front": {"", "__main__", "as_websockets", "connection"},
    "doors": {"asgi", "django"},
}

# Floor -> the floors that it may import, and single modules as doors into others.
MAY_IMPORT = {
    "words": {"words"},
    # There are so many slots; what is wrong with a URL its engine says.
    "config": {"words", "process", "_core.scoreboard", "bus.connect", "config"},
    "ipc": {"words", "config", "logs", "ipc"},
    "grammar": {"words", "grammar", "_core.deflate"},  # an extension holds what works for it
    "chapters": {"words", "grammar", "chapters", "_core.counters"},  # limits are called as their counters are
    "_core": {"_core"},
    "asyncio": {"words", "grammar", "chapters", "_core", "bus", "asyncio"},  # connections are members of channels
    "bus": {"words", "_core", "bus", "exceptions"},
    "hub": {"words", "process", "logs", "ipc", "_core", "bus.link", "hub"},  # no engine
    "logs": {"logs", "redaction", "text"},  # every process has one
    "process": {"logs", "process"},
    "metrics": {"words", "config", "_core", "process.proc", "metrics"},
    # Its HTTP is our own server's.
    "admin": {
        *("words", "config", "ipc", "logs", "process", "grammar", "_core", "asyncio", "metrics", "admin"),
        *("limits", "protocol", "bus"),  # it publishes
    },
    "worker": {
        *("words", "config", "ipc", "logs", "process", "grammar", "chapters", "_core", "asyncio", "bus", "worker"),
        "metrics.application",
    },
    "supervisor": {"words", "config", "ipc", "logs", "process", "_core", "supervisor"},  # given its children's lives
    "cli": {
        *("words", "config", "ipc", "logs", "process", "grammar", "_core", "asyncio", "metrics", "admin"),
        *("supervisor", "worker", "hub", "bus", "cli", "front"),
        *("client", "server"),  # bench makes its own opening handshakes
    },
    "doors": {"words", "grammar", "chapters", "bus", "asyncio", "doors"},  # for servers and frameworks of others
    "front": {"words", "cli"},
}

# Floor -> modules of ours that it must not know although their floor is open to it.
KNOWS_NOT = {
    "bus": {"frames"},
    "metrics": {"frames"},
    "admin": {"frames"},
    "supervisor": {"frames", "datastructures", "typing"},
}

IO = {
    "asyncio",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "uvloop",
}

# Floor -> modules of others that it must not import.
FOREIGN = {
    "words": IO,
    "grammar": IO | {"time", "datetime"},
    "chapters": IO | {"datetime"},
    "metrics": IO,
    "supervisor": {"asyncio", "uvloop", "threading", "multiprocessing", "concurrent"},  # no event loop, no threads
}

# Applications, which import from `tidegate` what everybody imports from there.
USES_THE_FRONT = {"cli.demo_application"}

# What time is, the chapters are told. Only the Date header falls back on the clock.
MAY_ASK_THE_TIME = {"server"}

# Types and style. .pre-commit-config.yaml has them, too.
TOOLS = ("mypy", "ruff check", "ruff format --check")


# Modules whose tests are elsewhere, and where.
TESTED_IN = {
    "_exceptions": "tests/test_exceptions.py",
    "_core.broadcast": "tests/asyncio/test_broadcast.py",
    "_core.parser": "tests/core/test_channel.py",
    "_core.scanner": "tests/core/test_load.py",
    "_core.timer": "tests/core/test_load.py",
    "asyncio.sender": "tests/asyncio/test_connection.py",
    "asyncio.server_connection": "tests/asyncio/test_server_handlers.py",
    "cli.bench.arguments": "tests/cli/test_bench.py",
    "cli.bench.process": "tests/cli/test_bench.py",
    "cli.bench.processes": "tests/cli/test_bench.py",
    "cli.bench.rounds": "tests/cli/test_bench.py",
    "cli.bench.opening": "tests/cli/test_bench.py",
    "cli.bench.server_metrics": "tests/cli/test_bench.py",
    "cli.bench.plan": "tests/cli/test_bench_results.py",
    "cli.bench.payload": "tests/cli/test_bench_results.py",
    "cli.bench.results": "tests/cli/test_bench_results.py",
    "cli.bench.report": "tests/cli/test_bench_results.py",
    "_core.topic": "tests/core/test_journal.py",
    "_core.hub_link": "tests/core/test_switch.py",
    "bus.link_state": "tests/bus/test_local.py",
    "bus.links": "tests/bus/test_local.py",
    "bus.nats_link": "tests/bus/test_nats.py",
    "bus.nats_reads": "tests/bus/test_nats.py",
    "bus.nats_streams": "tests/bus/test_nats.py",
    "bus.redis_connection": "tests/bus/test_redis.py",
    "bus.redis_link": "tests/bus/test_redis.py",
    "bus.redis_messages": "tests/bus/test_redis.py",
    "bus.redis_presence": "tests/bus/test_redis.py",
    "bus.redis_scripts": "tests/bus/test_redis.py",
    "asyncio.request_body": "tests/admin/test_publish.py",
    "bus.outside": "tests/cli/test_publish.py",
    "config.setting": "tests/config/test_schema.py",
    "config.consistency": "tests/config/test_schema.py",
    "cli.demo_application": "tests/browser/test_demo.py",
    "supervisor.hub": "tests/process/test_bus.py",
    "supervisor.sockets.listener": "tests/supervisor/sockets/test_listeners.py",
}


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name within tidegate, path) of every Python module; "" is the package itself."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def floor(module: str) -> str:
    """The floor of a module of ours, by its dotted name within tidegate."""
    first = module.partition(".")[0]
    return next((name for name, members in ROOT_FLOORS.items() if first in members), first)


def files(*patterns: str, below: Path = SOURCE) -> list[Path]:
    """Source files, without what Cython generates."""
    return sorted(path for pattern in patterns for path in below.rglob(pattern) if path.suffix != ".c")


def imports(module: str, path: Path, *, types: bool = False) -> Iterator[str]:
    """Absolute names of what a module imports at run time, lazily inside functions too; with `types` also for types."""
    package = ["tidegate", *(module.split(".") if module else [])]
    if path.name != "__init__.py":
        package.pop()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if types else run_time_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name != "tidegate":
                yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from run_time_nodes(child)


MODULES = dict(modules())


def ours(name: str) -> str | None:
    """The module of ours that an absolute name leads to, or None: `tidegate.frames.Close` is in "frames"."""
    package, _, rest = name.partition(".")
    if package != "tidegate":
        return None
    while rest and rest not in MODULES and not (SOURCE / rest.replace(".", "/")).with_suffix(".pyx").exists():
        rest = rest.rpartition(".")[0]
    return rest


@pytest.mark.parametrize("module", MODULES)
def test_floors(module: str) -> None:
    """Each module imports only from the floors that are open to its own; types of ours count, but in the front."""
    here = floor(module)
    assert here in MAY_IMPORT, f"{module} is on no floor: add it to the tables"
    for name in imports(module, MODULES[module], types=here != "front"):
        target = ours(name)
        if target is None:
            continue
        if not target:
            assert module in USES_THE_FRONT, f"{module} must import {name} from where it is defined"
        else:
            allowed = floor(target) in MAY_IMPORT[here] or target in MAY_IMPORT[here]
            # A package's own __init__ comes along with its modules; it is judged by itself.
            allowed = allowed or any(door.startswith(f"{target}.") for door in MAY_IMPORT[here])
            assert allowed, f"{module} ({here}) must not import {name} ({floor(target)})"
            assert target not in KNOWS_NOT.get(here, ()), f"{module} ({here}) must not know {target}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_of_others(module: str) -> None:
    """At run time each module imports only what its floor may import of other packages."""
    here = floor(module)
    for name in imports(module, MODULES[module]):
        if ours(name) is None:
            foreign = name.partition(".")[0]
            assert foreign not in FOREIGN.get(here, ()), f"{module} ({here}) must not import {name}"
            if here == "chapters" and module not in MAY_ASK_THE_TIME:
                assert foreign != "time", f"{module} must be told the time"


def reach(module: str, edges: dict[str, set[str]]) -> set[str]:
    """Every module that one leads to by imports; itself only in a circle."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        new = edges[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules each of which leads to each other."""
    reached = {module: reach(module, edges) for module in edges}
    return {
        frozenset(other for other in found if module in reached[other])
        for module, found in reached.items()
        if module in found
    }


def test_circles() -> None:
    """No modules import each other in a circle, by whatever imports: those for types and inside functions count.

    The front is left out: it leads to everything that it names, and applications import from it.
    """
    edges = {
        module: {target for name in imports(module, path, types=True) if (target := ours(name))} - {module}
        for module, path in MODULES.items()
    }
    edges = {module: targets & edges.keys() for module, targets in edges.items() if module}
    assert [sorted(circle) for circle in circles(edges)] == []


def test_circles_are_found() -> None:
    edges: dict[str, set[str]] = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert circles(edges) == {frozenset("bc"), frozenset("ef")}


@pytest.mark.parametrize("path", files("*.pyx", "*.pxd", "*.pxi"), ids=lambda path: path.name)
def test_native_code_imports_only_native_code(path: Path) -> None:
    found = re.findall(r"^\s*(?:from|cimport|import)\s+(\.*\s*tidegate[\w.]*|\.[\w.]*)", path.read_text(), re.MULTILINE)
    assert [name for name in found if not name.startswith("tidegate._core")] == []


@pytest.mark.parametrize(
    "path",
    files("*.py", "*.pyx", "*.pxd", "*.pyi", "*.h", "*.html") + files("*.py", below=ROOT / "tests"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_length_of_files(path: Path) -> None:
    if not path.is_relative_to(SOURCE):
        limit = LINES_OF_A_TEST_FILE
    else:
        limit = LINES_OF_A_NATIVE_FILE if path.suffix in (".pyx", ".pxd", ".h") else LINES_OF_A_FILE
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def lines_of(node: ast.stmt) -> int:
    """How many lines a statement takes."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines but for its docstring) of every function; of a Cython file's by the indentation below its `def`."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = node.body[0] if ast.get_docstring(node) is not None else None
                yield node.name, lines_of(node) - (lines_of(documented) if documented is not None else 0)
        return
    lines = text.splitlines()
    for number, line in enumerate(lines):
        head = re.match(r"(\s*)(?:c?p?def|async def)\b(?! class| enum| struct| extern| union)[^=]*?(\w+)\(", line)
        if head is None:
            continue
        indent, last = len(head[1]), number
        for below in range(number + 1, len(lines)):
            if lines[below].strip() and len(lines[below]) - len(lines[below].lstrip()) <= indent:
                if not lines[below].lstrip().startswith(")"):  # the end of a signature of several lines
                    break
            elif lines[below].strip():
                last = below
        yield head[2], last - number + 1


@pytest.mark.parametrize(
    "path", files("*.py", "*.pyx") + files("*.py", below=ROOT / "tests"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_length_of_functions(path: Path) -> None:
    assert {name: lines for name, lines in functions(path) if lines >= LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize(
    "path",
    files("*.py", "*.pyx", "*.pxd", "*.h", "*.html") + files("*.py", below=ROOT / "tests"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_charter(path: Path) -> None:
    """Every file opens by saying what lives in it; every module of the package also what must not."""
    text = path.read_text(encoding="utf-8")
    charter = re.match(r'(?:#.*\n)*\s*(?:"""(.*?)"""|/\*(.*?)\*/|<!doctype html>)', text, re.DOTALL)
    assert charter is not None, "it does not open with a docstring or comment"
    if path.suffix in (".py", ".pyx") and SOURCE in path.parents and path.name not in ("__init__.py", "__main__.py"):
        said = re.search(r"\b(not|no|nothing|none|only)\b", charter[0], re.IGNORECASE)
        assert said, "its docstring does not say what must not live in it"


@pytest.mark.parametrize(
    "path", files("test_*.py", below=ROOT / "tests"), ids=lambda path: str(path.relative_to(ROOT / "tests"))
)
def test_short_names_have_a_sentence(path: Path) -> None:
    """A test that is called `test_key` says in its docstring what holds; a longer name says it by itself."""
    tests = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.fullmatch(r"test_[^_]+", node.name)
    ]
    assert [node.name for node in tests if not (ast.get_docstring(node) or "").endswith(".")] == []


def test_tests_mirror_the_source() -> None:
    """Each module has its test module: src/tidegate/a/b.py -> tests/a/test_b*.py, and _core's are in tests/core."""
    names = [name for name, path in MODULES.items() if path.name not in ("__init__.py", "__main__.py")]
    names += [f"_core.{path.stem}" for path in files("*.pyx")]
    missing = []
    for name in names:
        folder, _, last = name.replace("_core", "core").replace(".", "/").rpartition("/")
        found = list((ROOT / "tests" / folder).glob(f"test_{last}.py"))
        found += list((ROOT / "tests" / folder).glob(f"test_{last}_*.py"))
        if name in TESTED_IN:
            found = [ROOT / TESTED_IN[name]]
        if not any(path.exists() for path in found):
            missing.append(name)
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("command", TOOLS)
def test_tools(command: str) -> None:
    """The types are strict, and the style is one."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONG
    )
    assert done.returncode == 0, done.stdout + done.stderr
