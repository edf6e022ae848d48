"""Loading an application: what counts as one, and what is said when there is none.

What must not live here: the checks of a handler one by one (tests/test_app.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.app import App
from tidegate.worker.loader import LoadError, load


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with nothing in it, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(directory: Path, source: str, name: str = "shop.py") -> None:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)


def problem(target: str) -> str:
    with pytest.raises(LoadError) as caught:
        load(target)
    assert caught.value.target == target
    assert str(caught.value) == f"the application {target} could not be loaded: {caught.value.problem}"
    return caught.value.problem


def test_a_handler_becomes_an_app(directory: Path) -> None:
    write(directory, "async def handler(websocket): ...")
    app = load("shop:handler")
    assert isinstance(app, App)
    assert app.handler.__name__ == "handler"  # type: ignore[attr-defined]


def test_an_app_is_taken_as_it_is(directory: Path) -> None:
    write(directory, "from tidegate import App\nasync def handler(websocket): ...\napp = App(handler)")
    assert load("shop:app") is sys.modules["shop"].app


def test_a_method_of_an_object_in_a_package(directory: Path) -> None:
    write(directory, "", "market/__init__.py")
    write(directory, "class Shop:\n  async def handle(self, websocket): ...\nshop = Shop()", "market/shop.py")
    assert load("market.shop:shop.handle").handler.__name__ == "handle"  # type: ignore[attr-defined]


def test_the_current_directory_comes_first(directory: Path) -> None:
    write(directory, "async def handler(websocket): ...", "antigravity.py")
    assert load("antigravity:handler")
    assert sys.path.count(str(directory)) == 1
    load("antigravity:handler")
    assert sys.path.count(str(directory)) == 1


def test_no_module(directory: Path) -> None:
    write(directory, "")
    assert problem("shpo:handler") == (
        f"there is no module shpo in {directory} or where Python looks for modules; did you mean shop?"
    )
    assert "did you mean" not in problem("zebra:handler")


def test_no_module_in_a_package(directory: Path) -> None:
    write(directory, "", "market/__init__.py")
    assert problem("market.shop:handler") == "the package market has no module shop"
    assert "there is no module nowhere" in problem("nowhere.shop:handler")
    assert "did you mean market?" in problem("markt:handler")


def test_a_module_that_imports_what_is_not_there(directory: Path) -> None:
    write(directory, "\nimport no_such_module\n")
    text = problem("shop:handler")
    assert text.startswith("importing shop failed\nTraceback")
    assert 'shop.py", line 2' in text
    assert text.endswith("No module named 'no_such_module'")


@pytest.mark.parametrize("name", ["loader.py", "importlib"])
def test_a_traceback_begins_with_the_application(directory: Path, name: str) -> None:
    write(directory, "def sell():\n    1 / 0\nsell()\n")
    write(directory, "import shop\n", "market.py")
    text = problem("market:handler")
    assert name not in text
    assert text.splitlines()[2].strip().startswith(f'File "{directory}/market.py", line 1')
    assert text.endswith("ZeroDivisionError: division by zero")


def test_causes_are_shown(directory: Path) -> None:
    write(directory, "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('shut') from error\n")
    text = problem("shop:handler")
    assert text.index("ZeroDivisionError") < text.index("The above exception was the direct cause") < text.index("shut")


def test_a_very_long_error_is_shortened(directory: Path) -> None:
    write(directory, "raise RuntimeError('first' + 'x' * 1_000_000 + 'last')")
    text = problem("shop:handler")
    assert len(text) < 20_000
    for words in ("RuntimeError: first", "characters are left out", "last"):
        assert words in text


def test_a_syntax_error(directory: Path) -> None:
    write(directory, "async def handler(websocket\n")
    text = problem("shop:handler")
    assert "SyntaxError" in text
    assert "^" in text
    assert "loader" not in text


def test_a_module_that_ends_the_process(directory: Path) -> None:
    write(directory, "import sys\nsys.exit('bye')\n")
    text = problem("shop:handler")
    assert "if __name__ == '__main__'" in text
    assert "SystemExit: bye" in text


@pytest.mark.parametrize(
    ("source", "attribute", "words"),
    [
        ("async def handler(websocket): ...", "handlr", "no attribute handlr; did you mean handler?"),
        ("async def chat(websocket): ...\nasync def news(websocket): ...", "app", "; it has chat, news"),
        (
            "from tidegate import basic_auth\nfrom werkzeug.routing import Map\nroutes = Map()\n"
            "@basic_auth('a', 'b')\nasync def chat(websocket): ...",
            "daemon",
            "; it has chat, routes",
        ),
        ("from asyncio import sleep", "app", "it should have an `async def handler(websocket)`, a `tidegate.App`"),
        ("", "app", "it should have an `async def handler(websocket)`, a `tidegate.App`"),
        ("class Shop: ...\nshop = Shop()", "shop.sell", "the Shop shop has no attribute sell"),
    ],
)
def test_no_attribute(directory: Path, source: str, attribute: str, words: str) -> None:
    write(directory, source)
    assert words in problem(f"shop:{attribute}")


def test_a_map_becomes_an_app(directory: Path) -> None:
    rules = "from werkzeug.routing import Map, Rule\nasync def handler(websocket): ...\n"
    write(
        directory,
        f"{rules}routes = Map([Rule('/', endpoint=handler)])\nwrong = Map([Rule('/<name>', endpoint=handler)])",
    )
    assert load("shop:routes").handler is sys.modules["shop"].routes
    text = problem("shop:wrong")
    assert text.startswith(
        "wrong is not an application: the endpoint of the rule '/<name>' must take the connection and name"
    )


def test_an_attribute_that_is_no_application(directory: Path) -> None:
    write(directory, "port = 8765\ndef app(environ, start_response): ...\n")
    assert problem("shop:port").startswith("port is not an application: the handler must be a callable")
    assert "not int 8765" in problem("shop:port")
    assert "must take the connection alone" in problem("shop:app")


def test_an_app_that_cannot_be(directory: Path) -> None:
    write(directory, "from tidegate import App\nasync def handler(_): ...\napp = App(handler, subprotocols='x')")
    text = problem("shop:app")
    assert "TypeError: subprotocols must be a list" in text
    assert 'shop.py", line 3' in text


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit", "SystemExit", "BaseException"])
def test_whatever_is_raised_is_told(directory: Path, error: str) -> None:
    write(directory, f"def __getattr__(name): raise {error}('not today')")
    assert problem("shop:handler").endswith(f"{error}: not today")
    write(directory, f"raise {error}('not today')", "market.py")
    assert problem("market:handler").endswith(f"{error}: not today")


ASGI = """
class Framework:
    async def __call__(self, scope, receive, send): ...
app = Framework()
def make(): return Framework()
def needs(it): return Framework()
async def later(): return Framework()
def broken(): raise ZeroDivisionError("by zero")
number = 1
"""


def test_an_asgi_application_becomes_an_app(directory: Path) -> None:
    write(directory, ASGI)
    app = load("shop:app")
    assert app.asgi is sys.modules["shop"].app
    assert app.handler is app.asgi


def test_a_function_that_makes_the_application_is_called(directory: Path) -> None:
    write(directory, ASGI)
    assert type(load("shop:make()").asgi).__name__ == "Framework"
    assert "needs() failed" in problem("shop:needs()")
    assert "missing 1 required positional argument" in problem("shop:needs()")
    assert "by zero" in problem("shop:broken()")
    assert "must return the application, and is a coroutine function" in problem("shop:later()")
    assert "number cannot be called: leave the parentheses out" in problem("shop:number()")
    assert "the module shop has no attribute nothing" in problem("shop:nothing()")


def test_a_framework_that_is_there_is_named(directory: Path) -> None:
    write(directory, ASGI)
    assert "it has app" in problem("shop:xyzzy")


def test_an_asgi_application_needs_uvicorn(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(directory, ASGI)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'tidegate[asgi]'" in problem("shop:app")
