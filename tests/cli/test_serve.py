"""The command line: what it makes of its arguments, and the one line that tells a mistake.

What must not live here: the grammar of each setting (tests/test_config.py), the daemon (tests/process).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.patience import PATIENCE
from tidegate.cli import COMMANDS, main, serve, tidegate
from tidegate.config.bind import Tcp, Unix
from tidegate.config.schema import Config, settings
from tidegate.config.types import SWITCH


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations with which the daemon would have run."""
    configs: list[Config] = []
    for name in os.environ:
        if name.startswith("TIDEGATE_"):
            monkeypatch.delenv(name)

    def run(config: Config, load: Callable[[], Config], file: str | None = None) -> int:
        configs.append(config)
        assert load() == config
        return 0

    monkeypatch.setattr(serve, "run", run)
    return configs


def status_of(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_defaults(ran: list[Config]) -> None:
    """Without options the daemon runs with the default of every setting."""
    assert status_of("serve", "app:handler") == 0
    assert ran == [Config(application="app:handler")]


def test_options(ran: list[Config]) -> None:
    """Options become settings, with their units and words parsed."""
    options = "--bind [::1]:80 --bind unix:/run/x --workers auto --admin none --drain 1 --ping-interval none"
    options += " --max-size 64KiB --max-queue 8,2 --compression none --server-header none --log-level debug"
    assert status_of("serve", *options.split(), "app:handler") == 0
    assert ran == [
        Config(
            application="app:handler",
            bind=(Tcp("::1", 80), Unix("/run/x")),
            workers="auto",
            admin=None,
            drain=1.0,
            ping_interval=None,
            max_size=65536,
            max_queue=(8, 2),
            compression=None,
            server_header=None,
            log_level="debug",
        )
    ]


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    ran: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tidegate.toml"
    path.write_text('application = "file:app"\nworkers = 2\nbacklog = 2\nmax_queue = 2\n')
    monkeypatch.setenv("TIDEGATE_CONFIG", str(path))
    monkeypatch.setenv("TIDEGATE_WORKERS", "3")
    monkeypatch.setenv("TIDEGATE_BACKLOG", "3")
    assert status_of("serve", "--workers", "4") == 0
    assert status_of("serve", "--config", str(path), "app:handler") == 0
    (path.parent / "other.toml").write_text("max_queue = 9\n")
    assert status_of("serve", "--config", str(path.parent / "other.toml"), "app:handler") == 0
    assert ran == [
        Config(application="file:app", workers=4, backlog=3, max_queue=2),
        Config(application="app:handler", workers=3, backlog=3, max_queue=2),
        Config(application="app:handler", workers=3, backlog=3, max_queue=9),
    ]


def test_print_config_is_a_file(ran: list[Config], tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "tidegate.toml"
    options = ["--bind", "unix:/run/ü", "--bind", "[::1]:1", "--workers", "auto", "--ping-interval", "none"]
    assert status_of("serve", "app:handler", *options, "--print-config") == 0
    assert ran == []
    path.write_bytes(capsysbinary.readouterr().out)
    assert status_of("serve", "app:handler", *options) == 0
    assert status_of("serve", "--config", str(path)) == 0
    assert ran[0] == ran[1]
    assert ran[0].bind == (Unix("/run/ü"), Tcp("::1", 1))


@pytest.mark.parametrize(
    ("text", "variable", "line"),
    [
        ("wrkers = 2", "", "tidegate.toml:1: there is no setting wrkers: did you mean workers?"),
        (
            "\nworkers = true",
            "",
            "tidegate.toml:2: workers 'true' is not allowed (it is true or false): give a whole number from 1 to 256,"
            " or auto",
        ),
        ("workers =", "", "tidegate.toml:1: this is not TOML: Invalid value"),
        (None, "", "tidegate.toml: the configuration file cannot be read: No such file or directory"),
        ("", "WRKERS", "TIDEGATE_WRKERS in the environment is not a setting: did you mean TIDEGATE_WORKERS?"),
        ("", "WORKERS", "TIDEGATE_WORKERS 'x' is not allowed: give a whole number from 1 to 256, or auto"),
        (
            "drain = 40",
            "",
            "tidegate.toml:1: drain '40' is not allowed: give less than --graceful-timeout, which is 30",
        ),
    ],
)
def test_a_mistake_in_the_file_or_environment_is_one_line_and_status_2(
    text: str | None,
    variable: str,
    line: str,
    ran: list[Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("tidegate.toml").write_text(text)
    if variable:
        monkeypatch.setenv(f"TIDEGATE_{variable}", "x")
    assert status_of("serve", "--config", "tidegate.toml", "app:handler") == 2
    assert capsys.readouterr() == ("", f"tidegate serve: {line}\n")
    assert ran == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "tidegate: Missing command."),
        (["sevre"], "tidegate: No such command 'sevre'."),
        (["serve"], "tidegate serve: APPLICATION is missing: give MODULE:ATTRIBUTE, such as app:handler"),
        (
            ["serve", "app"],
            "tidegate serve: APPLICATION 'app' is not allowed: give MODULE:ATTRIBUTE, such as app:handler",
        ),
        (
            ["serve", "app:handler", "--workers", "many"],
            "tidegate serve: --workers 'many' is not allowed: give a whole number from 1 to 256, or auto",
        ),
        (
            ["serve", "app:handler", "--workers"],
            "tidegate serve: --workers needs a value: give a whole number from 1 to 256, or auto",
        ),
        (
            ["serve", "app:handler", "--bind", "8765"],
            "tidegate serve: --bind '8765' is not allowed (the host is missing, as in 0.0.0.0:8765): "
            "give HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N, systemd or systemd:NAME",
        ),
        (
            ["serve", "app:handler", "--drain=40"],
            "tidegate serve: --drain '40' is not allowed: give less than --graceful-timeout, which is 30",
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], line: str, ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(*arguments) == 2
    assert capsys.readouterr() == ("", line + "\n")
    assert ran == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--wrkers", "2"], ["--wrkers", "--workers"]), (["x"], ["x"]), (["--bind", "a\nb"], ["--bind", "a\\nb"])],
)
def test_other_mistakes_are_one_line_too(
    arguments: list[str], words: list[str], ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """In click's words, which differ from one version to the next."""
    assert status_of("serve", "app:handler", *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert all(word in err for word in words)


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("serve", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for setting in settings().values():
        if not setting.positional:
            other = f"/ --no-{setting.flag[2:]}" if setting.kind is SWITCH else setting.kind.metavar
            assert f"{setting.flag} {other}" in text
    assert "[default: 127.0.0.1:8765]" in text


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    context = click.Context(tidegate)
    for name in COMMANDS:
        command = tidegate.get_command(context, name)
        assert isinstance(command, click.Command)
        assert command.name == name


def test_the_group_imports_no_command() -> None:
    program = "import sys, tidegate.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: pass\n"
    program += "print([name for name in ('uvloop', 'asyncio', 'msgspec', 'prometheus_client') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.splitlines()[1] == "[]"
