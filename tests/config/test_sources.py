"""Where settings come from: what a file and the environment may say, which source wins, what is a mistake, and a
configuration that is printed and read again.

What must not live here: how settings are written on the command line (tests/config/test_types.py), commands
(test_serve.py).
"""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.harness import ROOT
from tidegate.config import sources
from tidegate.config.bind import Tcp, Unix
from tidegate.config.errors import ConfigError
from tidegate.config.schema import Config, Setting, settings
from tidegate.config.sources import (
    OTHERS,
    FileError,
    Loader,
    MissingSetting,
    Origin,
    UnknownSetting,
    as_toml,
)

APPLICATION = {"application": "app:handler"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.toml"


def loaded(file: Path, text: str) -> Config:
    """What a file with this text says, for an application."""
    file.write_text(text, encoding="utf-8")
    return Loader(APPLICATION, {}, str(file)).load()


def mistake(file: Path, text: str) -> str:
    """What is wrong with a file, without its folder."""
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    assert str(caught.value).startswith(str(file))
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{file.parent}/")


# Files.


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("workers = 4", "workers", 4),
        ('workers = "4"', "workers", 4),
        ('workers = "auto"', "workers", "auto"),
        ("drain = 0", "drain", 0.0),
        ("drain = 1.5", "drain", 1.5),
        ("drain = 1e1", "drain", 10.0),
        ("drain = 1e-7", "drain", 1e-7),
        ('drain = "500ms"', "drain", 0.5),
        ("max_size = 65_536", "max_size", 65536),
        ('max_size = "64KiB"', "max_size", 65536),
        ('max_size = "none"', "max_size", None),
        ("max_queue = 8", "max_queue", 8),
        ("max_queue = [8, 2]", "max_queue", (8, 2)),
        ('write_limit = ["64KiB", 1024]', "write_limit", (65536, 1024)),
        ('write_limit = "64KiB,1KiB"', "write_limit", (65536, 1024)),
        ('bind = "[::1]:80"', "bind", (Tcp("::1", 80),)),
        ('bind = ["[::1]:80", "unix:/run/a b"]', "bind", (Tcp("::1", 80), Unix("/run/a b"))),
        ('admin = "none"', "admin", None),
        ('server_header = ""', "server_header", ""),
        ("\ufeff'log_level' = 'debug'\r\n", "log_level", "debug"),
    ],
)
def test_values_of_a_file(file: Path, text: str, name: str, value: object) -> None:
    assert getattr(loaded(file, text), name) == value
    assert type(getattr(loaded(file, text), name)) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 4.0", "workers '4' is not allowed (it is a number): give a whole number from 1 to 256, or auto"),
        ("workers = -1", "workers '-1' is not allowed: give a whole number"),
        ("workers = 257", "workers '257' is not allowed: give a whole number from 1 to 256"),
        ("workers = [4]", "workers '...' is not allowed (it is an array): give"),
        ("workers = {a = 1}", "workers '...' is not allowed (it is a table): give"),
        ("[workers]\nmany = 4", "workers '...' is not allowed (it is a table): give"),
        ("workers = 1979-05-27", "workers '1979-05-27' is not allowed (it is a date or a time): give"),
        (f"workers = 0x1{'0' * 5000}", "workers 'a huge number' is not allowed: give"),
        ("drain = true", "drain 'true' is not allowed (it is true or false): give seconds"),
        ("drain = nan", "drain 'nan' is not allowed: give seconds"),
        ("drain = inf", "drain 'inf' is not allowed: give seconds"),
        ('drain = "1 fortnight"', "drain '1 fortnight' is not allowed (the units are ms, s, m, h): give seconds"),
        ("open_timeout = 0", "open_timeout '0' is not allowed (it must be above 0): give"),
        ("max_size = 1.5", "max_size '1.5' is not allowed (it is a number): give bytes"),
        ("max_queue = [1, 2, 3]", "max_queue '1,2,3' is not allowed: give"),
        ("max_queue = []", "max_queue '' is not allowed: give"),
        ("log_level = 3", "log_level '3' is not allowed (it is a whole number): give debug or info"),
        ("server_header = 1", "server_header '1' is not allowed (it is a whole number): give printable ASCII"),
        ("application = 1", "application '1' is not allowed (it is a whole number): give MODULE:ATTRIBUTE"),
        ("bind = []", "bind '' is not allowed (at least one is needed): give HOST:PORT"),
        ("bind = [8765]", "bind '8765' is not allowed (it is a whole number): give HOST:PORT"),
        ('bind = ["8765"]', "bind '8765' is not allowed (the host is missing, as in 0.0.0.0:8765): give HOST:PORT"),
        ("drain = 30", "drain '30' is not allowed: give less than --graceful-timeout, which is 30"),
    ],
)
def test_values_of_a_file_that_are_none(file: Path, text: str, words: str) -> None:
    assert mistake(file, text).startswith(f"tidegate.toml:1: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrkers = 2", "1: there is no setting wrkers: did you mean workers?"),
        ("\nping-interval = 2", "2: there is no setting ping-interval: did you mean ping_interval?"),
        ("Workers = 2", "1: there is no setting Workers: did you mean workers?"),
        ('"w\\nrkers" = 2', " there is no setting w\\nrkers: did you mean workers?"),
        ("zzz = 2", "1: there is no setting zzz: `tidegate serve --help` lists them"),
        ("# a\n[serve]\nworkers = 2", "2: there is no table serve: write each setting as name = value"),
        ("[[serve]]\nworkers = 2", "1: there is no table serve: write each setting as name = value"),
        ("serve.workers = 2", "1: there is no table serve: write each setting as name = value"),
        ("[x]", "1: there is no table x: write each setting as name = value"),
        # What looks like the line may be within a text.
        ("bind = '''unix:/run/\nwrkers = 1\n'''\nwrkers = 2", "4: there is no setting wrkers: did"),
        ("log_level = 'info' # '''\nwrkers = 1\n", "2: there is no setting wrkers: did"),
        ('"wrkers" = 2', "1: there is no setting wrkers: did"),
    ],
)
def test_what_no_setting_is_called(file: Path, text: str, words: str) -> None:
    assert mistake(file, text).startswith(f"tidegate.toml:{words}")


def test_an_error_has_what_it_says(file: Path) -> None:
    file.write_text("\nwrkers = 2\n")
    with pytest.raises(UnknownSetting) as caught:
        Loader(APPLICATION, {}, str(file)).load()
    assert (caught.value.place, caught.value.name, caught.value.meant) == (f"{file}:2", "wrkers", "workers")
    file.write_text("x")
    with pytest.raises(FileError) as other:
        Loader(APPLICATION, {}, str(file)).load()
    assert other.value.place == f"{file}:1"
    assert other.value.problem.startswith("this is not TOML: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"workers = 2\nworkers = 2\n", "tidegate.toml:2: this is not TOML: Cannot overwrite a value"),
        (b"\nworkers 2\n", "tidegate.toml:2: this is not TOML: Expected '='"),
        (b"\nworkers = ", "tidegate.toml:2: this is not TOML: Invalid value"),
        (b"workers = 2\n\n\xff", "tidegate.toml:3: the file is not UTF-8"),
        (b"workers = " + b"9" * 5000, "tidegate.toml: this is not TOML: Exceeds the limit"),
        (b"workers = " + b"[" * 100_000, "tidegate.toml: brackets are nested too deeply"),
    ],
)
def test_files_that_are_no_toml(file: Path, data: bytes, words: str) -> None:
    file.write_bytes(data)
    with pytest.raises(FileError) as caught:
        Loader(APPLICATION, {}, str(file)).load()
    assert str(caught.value).removeprefix(f"{file.parent}/").startswith(words)
    assert "(at " not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(FileError) as caught:
            Loader(APPLICATION, {}, str(path)).load()
        assert str(caught.value) == f"{path}: the configuration file cannot be read: {why}"


@given(st.text() | st.lists(st.sampled_from([*settings(), " = ", "\n", "1", "'", '"""', "[", "]", "x"])).map("".join))
def test_no_text_is_more_than_a_mistake(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text, encoding="utf-8", newline="")
    words = ""
    try:
        Loader(APPLICATION, {}, str(file)).load()
    except ConfigError as error:
        words = str(error)
    assert words.isprintable()


# The environment.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("workers", "4", 4),
        ("ping_interval", "none", None),
        ("max_queue", "8,2", (8, 2)),
        ("bind", "127.0.0.1:1  [::1]:2", (Tcp("127.0.0.1", 1), Tcp("::1", 2))),
        ("workers", "", 1),
        ("bind", "", (Tcp("127.0.0.1", 8765),)),
    ],
)
def test_values_of_the_environment(name: str, text: str, value: object) -> None:
    assert getattr(Loader(APPLICATION, {f"TIDEGATE_{name.upper()}": text}).load(), name) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("TIDEGATE_WORKERS", "x", "TIDEGATE_WORKERS 'x' is not allowed: give a whole number from 1 to 256, or auto"),
        ("TIDEGATE_BIND", " ", "TIDEGATE_BIND '' is not allowed (at least one is needed): give HOST:PORT"),
        ("TIDEGATE_BIND", "[::1]:2 x", "TIDEGATE_BIND 'x' is not allowed (the port is missing): give HOST:PORT"),
        ("TIDEGATE_DRAIN", "40", "TIDEGATE_DRAIN '40' is not allowed: give less than --graceful-timeout"),
        ("TIDEGATE_WRKERS", "2", "TIDEGATE_WRKERS in the environment is not a setting: did you mean TIDEGATE_WORK"),
        (
            "TIDEGATE_workers",
            "2",
            "TIDEGATE_workers in the environment is not a setting: did you mean TIDEGATE_WORKERS?",
        ),
        (
            "TIDEGATE_MAX_FRAGMENT",
            "2",
            "TIDEGATE_MAX_FRAGMENT in the environment is not a setting: did you mean TIDEGATE_M",
        ),
        ("TIDEGATE_", "2", "TIDEGATE_ in the environment is not a setting"),
        ("TIDEGATE_PORT", "8765", "TIDEGATE_PORT in the environment is not a setting"),
        ("TIDEGATE_\n", "2", "TIDEGATE_\\n in the environment is not a setting"),
    ],
)
def test_what_the_environment_must_not_say(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Loader(APPLICATION, {name: text}).load()
    assert str(caught.value).startswith(words)
    assert str(caught.value).isprintable()


def test_other_variables_are_left_alone() -> None:
    others = dict.fromkeys(OTHERS, "1")
    others["TIDEGATE_CONFIG"] = ""
    assert Loader(APPLICATION, {**others, "HOME": "/", "WORKERS": "9"}).load() == Config(application="app:handler")


def test_services_of_kubernetes_are_no_settings() -> None:
    """They are in the environment of each container of a namespace that has a service called tidegate."""
    variables = {
        "TIDEGATE_SERVICE_HOST": "10.0.0.11",
        "TIDEGATE_SERVICE_PORT": "8765",
        "TIDEGATE_SERVICE_PORT_WS": "8765",
        "TIDEGATE_PORT": "tcp://10.0.0.11:8765",
        "TIDEGATE_PORT_8765_TCP": "tcp://10.0.0.11:8765",
        "TIDEGATE_PORT_8765_TCP_PROTO": "tcp",
        "TIDEGATE_PORT_8765_TCP_PORT": "8765",
        "TIDEGATE_PORT_8765_TCP_ADDR": "10.0.0.11",
        "TIDEGATE_ADMIN_SERVICE_HOST": "10.0.0.12",
        "TIDEGATE_ADMIN_SERVICE_PORT": "9465",
        "TIDEGATE_ADMIN_PORT": "tcp://10.0.0.12:9465",
        "TIDEGATE_ADMIN_PORT_9465_TCP": "tcp://10.0.0.12:9465",
    }
    assert Loader(APPLICATION, variables).load() == Config(application="app:handler")


def test_every_variable_that_somebody_reads_is_known() -> None:
    reads = re.compile(r"(?:environ(?:\.get|\.pop)?|getenv|number)[(\[]\s*[\"'](TIDEGATE_\w+)")
    known = {*OTHERS, *(setting.environment for setting in settings().values())}
    found = {}
    for folder in ("src", "tests"):
        for pattern in ("*.py", "*.pyx"):
            for path in (ROOT / folder).rglob(pattern):
                found.update(dict.fromkeys(reads.findall(path.read_text(encoding="utf-8")), path))
    assert {name: path for name, path in found.items() if name not in known} == {}
    assert len(found) > 10


# Precedence and origins.


def test_the_last_source_wins_and_is_the_origin(file: Path) -> None:
    file.write_text('application = "file:app"\nworkers = 2\nbacklog = 2\nbind = ["[::1]:1", "[::1]:2"]\n')
    environment = {"TIDEGATE_CONFIG": str(file), "TIDEGATE_WORKERS": "3", "TIDEGATE_BACKLOG": "3"}
    resolved = Loader({"workers": 4}, environment).resolve()
    assert resolved.config == Config(application="file:app", workers=4, backlog=3, bind=(Tcp("::1", 1), Tcp("::1", 2)))
    assert resolved.origins["workers"] == Origin("command line", "--workers")
    assert resolved.origins["backlog"] == Origin("environment", "TIDEGATE_BACKLOG")
    assert resolved.origins["application"] == Origin("file", "application", f"{file}:1")
    assert resolved.origins["drain"] == Origin("default")
    assert str(resolved.origins["bind"]) == f"file {file}:4"
    assert str(resolved.origins["backlog"]) == "environment TIDEGATE_BACKLOG"
    assert str(resolved.origins["workers"]) == "command line --workers"
    assert str(resolved.origins["drain"]) == "default"
    assert set(resolved.origins) == set(settings())


def test_several_values_replace_several_values(file: Path) -> None:
    file.write_text('bind = ["[::1]:1", "[::1]:2"]\n')
    config = Loader(APPLICATION, {"TIDEGATE_BIND": "[::1]:3"}, str(file)).load()
    assert config.bind == (Tcp("::1", 3),)


def test_a_mistake_that_another_source_hides_is_a_mistake(file: Path) -> None:
    file.write_text("workers = 0\n")
    with pytest.raises(ConfigError, match="workers '0'"):
        Loader({**APPLICATION, "workers": 4}, {}, str(file)).load()


def test_the_command_line_goes_before_the_variable_that_names_a_file(file: Path, tmp_path: Path) -> None:
    file.write_text("workers = 2\n")
    loader = Loader(APPLICATION, {"TIDEGATE_CONFIG": str(tmp_path / "none")}, str(file))
    assert loader.path == str(file)
    assert loader.load().workers == 2


def test_what_depends_on_another_setting_is_named_as_it_was_given(file: Path) -> None:
    file.write_text("graceful_timeout = 5\n")
    with pytest.raises(
        ConfigError, match=r"^--drain '7' is not allowed: give less than --graceful-timeout, which is 5"
    ):
        Loader({**APPLICATION, "drain": 7.0}, {}, str(file)).load()


def test_an_application_is_needed() -> None:
    with pytest.raises(MissingSetting) as caught:
        Loader({}, {}).load()
    assert str(caught.value) == "APPLICATION is missing: give MODULE:ATTRIBUTE, such as app:handler"
    assert Loader({}, {"TIDEGATE_APPLICATION": "a:b"}).load() == Config(application="a:b")


# Again.


def test_the_file_is_read_again_and_the_others_are_as_they_were(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file.write_text("workers = 2\nbacklog = 2\n")
    environment = {"TIDEGATE_BACKLOG": "3"}
    loader = Loader(APPLICATION, environment, file.name)
    assert loader.load() == Config(application="app:handler", workers=2, backlog=3)
    environment["TIDEGATE_BACKLOG"] = "4"
    monkeypatch.chdir("/")
    file.write_text("workers = 5\n")
    assert loader.load() == Config(application="app:handler", workers=5, backlog=3)
    file.write_text("workers = 0\n")
    with pytest.raises(ConfigError, match=r"^tidegate\.toml:1: workers '0' is not allowed"):
        loader.load()
    file.unlink()
    with pytest.raises(FileError, match=r"^tidegate\.toml: the configuration file cannot be read: No such file"):
        loader.load()
    file.write_text("workers = 6\n")
    assert loader.load().workers == 6


# Printed and read again.


def texts(setting: Setting) -> st.SearchStrategy[str] | None:
    """What may be given for a setting; None for one that is written as no other."""
    words = [word for word in setting.kind.metavar.removesuffix("[,LOW]").split("|") if word.islower()]
    shapes = [shape for start, shape in SHAPES.items() if setting.kind.metavar.startswith(start)]
    if numbers := re.match(r"a whole number from (\d+) to (\d+)", setting.kind.allowed):
        shapes.append(st.integers(int(numbers[1]), int(numbers[2])).map(str))
    if words:
        shapes.append(st.sampled_from(words))
    return st.one_of(shapes).filter(lambda text: is_allowed(setting, text)) if shapes else None


def is_allowed(setting: Setting, text: str) -> bool:
    try:
        setting.read(text)
    except ConfigError:
        return False
    return True


_names = st.text(string.ascii_letters + string.digits, min_size=1)
_seconds = st.floats(min_value=1e-9, max_value=366 * 86400).map("{:.12f}".format) | st.integers(1, 999).map(
    "{}ms".format
)
_ports = st.integers(0, 65535).map(str)
SHAPES = {
    "MODULE:ATTRIBUTE": st.just("app:handler"),
    "ADDRESS": st.tuples(_names, _ports).map(":".join)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map("unix:".__add__),
    "HOST:PORT": st.tuples(_names, _ports).map(":".join),
    "SECONDS": _seconds,
    "SIZE": st.integers(1, 2**48).map(str) | st.sampled_from(["64KiB", "1MiB", "3GB"]),
    "TEXT": st.text(string.printable[:95]),
}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Settings as the command line would give them, by name."""
    values: dict[str, Any] = {"application": "app:handler"}
    for name, setting in settings().items():
        shape = texts(setting)
        if shape is None or setting.secret or not draw(st.booleans()):
            continue
        given_here = draw(st.lists(shape, min_size=1, max_size=3)) if setting.many else [draw(shape)]
        read = tuple(map(setting.read, given_here))
        values[name] = read if setting.many else read[0]
    while True:
        try:
            Config(**values)
        except ConfigError as error:  # it does not go with another
            del values[next(name for name, setting in settings().items() if setting.flag == error.option)]
        else:
            return values


@given(configurations())
def test_what_is_printed_is_a_file_that_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "printed.toml"
    resolved = Loader(values, {}).resolve()
    file.write_text(as_toml(resolved), encoding="utf-8", newline="")
    again = Loader({}, {}, str(file)).resolve()
    assert again.config == resolved.config
    for name in values:
        assert again.origins[name].source == "file"


def test_how_it_is_printed(file: Path) -> None:
    file.write_text("workers = 2\nping_interval = 1.5\n")
    given_here = {"application": "app:handler", "bind": (Tcp("::1", 1), Unix('/run/"x"\x7f'))}
    text = as_toml(Loader(given_here, {"TIDEGATE_MAX_SIZE": "none"}, str(file)).resolve())
    lines = [re.sub(" +# ", " # ", line).strip() for line in text.splitlines()]
    assert lines[0].startswith("# tidegate ")
    assert len(lines) == 1 + len(settings())
    for line in (
        'application = "app:handler" # command line APPLICATION',
        r'bind = ["[::1]:1", "unix:/run/\"x\"\u007f"] # command line --bind',
        f"workers = 2 # file {file}:1",
        f"ping_interval = 1.5 # file {file}:2",
        'max_size = "none" # environment TIDEGATE_MAX_SIZE',
        "max_queue = 16 # default",
        'write_limit = "32KiB" # default',
        "# drain: a third of --graceful-timeout # default",
    ):
        assert line in lines


def test_a_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = Loader({**APPLICATION, "server_header": "hunter2"}, {}).resolve()
    assert "hunter2" in as_toml(resolved)
    secret = {name: replace(setting, secret=True) for name, setting in settings().items()}
    monkeypatch.setattr(sources, "settings", lambda: secret)
    assert "hunter2" not in as_toml(resolved)
