"""README and guides: what they name exists, links lead somewhere, code runs, commands are understood.

What must not live here: whether what they say is true, beyond names and defaults; the README's blocks (test_readme.py,
test_newcomer.py), the generated pages (tests/cli/test_reference.py).
"""

from __future__ import annotations

import importlib
import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import pytest
import uvicorn

from tests.benchmarks import compare
from tests.support.harness import ROOT
from tidegate import logs
from tidegate.cli import COMMANDS, Commands, reference, tidegate
from tidegate.config.schema import settings
from tidegate.config.sources import OTHERS, Loader
from tidegate.ipc import exit_status
from tidegate.metrics.catalog import CATALOG
from tidegate.supervisor.signals import CAUGHT

README = ROOT / "README.md"
OPERATING = ROOT / "deploy" / "guides" / "operating.md"
FRAMEWORKS = ROOT / "deploy" / "guides" / "frameworks.md"
PAGES = [README, *sorted((ROOT / "deploy" / "guides").glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)

# Options of other programs.
FOREIGN = {
    *("--no-deps", "--retry", "--retry-connrefused", "--storage", "--strict", "--web"),
    *("--ws", "--ws-max-size", "--ws-max-queue", "--ws-ping-interval", "--ws-ping-timeout", "--ws-per-message-deflate"),
    *("--header", "--no-date-header", "--no-server-header"),
}


# A row of the table of options of four servers, and ours.
MOVES = r"^\|(.*)\|(.*)\|(.*)\|(.*)\|(.*)\|$"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """Code within the prose; it may go on in the next line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def lines_of(block: str) -> Iterator[str]:
    """The commands of a block, without what they are given on standard input."""
    block = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
    yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


def commands(page: Path) -> Iterator[list[str]]:
    """The subcommand and the arguments of every command of ours that is there in full."""
    for text in [*spans(page), *(line for block in blocks(page, "sh") for line in lines_of(block))]:
        match = re.search(r"(?:^|[\s/])tidegate ([^&|]*)", text)
        if match is not None and "..." not in text and not text.startswith("python"):
            yield shlex.split(match[1])


def options() -> set[str]:
    """Every option of every command, and of the comparison of servers."""
    group = tidegate
    assert isinstance(group, Commands)
    context = click.Context(group)
    found = {"--help", "--version", *re.findall(r"--[a-z]+", compare.__doc__ or "")}
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return found


def links(page: Path) -> list[str]:
    """Where the page leads to, but for other sites."""
    found = re.findall(r"\[[^\]]+\]\(([^)]+)\)", TEXTS[page].replace("\n", " "))
    return [link for link in found if not link.startswith("https://")]


def paths(page: Path) -> list[str]:
    """Files of the project."""
    return [span for span in spans(page) if re.fullmatch(r"(deploy|src|tests|grafana|\.ci|\.github)(/[\w.]+)*/?", span)]


def metrics(page: Path) -> list[tuple[str, str]]:
    """Metrics, each with its selector or ""."""
    return [(name, chosen) for name, _, chosen in re.findall(r"\b(tidegate_[a-z_]+)(\{([^}]*)\})?", TEXTS[page])]


def defaults(page: Path) -> list[tuple[str, str]]:
    """Options with a value in brackets behind them: `--settle` (1 s)."""
    return re.findall(r"`(--[a-z-]+)` \(([\d.:]+(?:,\d+)?(?: ?(?:s|KiB|MiB))?)[,)]", prose(page))


@pytest.mark.parametrize(
    ("find", "least"),
    [(links, 30), (paths, 10), (commands, 20), (metrics, 50), (defaults, 10)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_there_is_something_to_check(find: Callable[[Path], Iterable[object]], least: int) -> None:
    """Or the pages have come to be written in another way, which the checks below do not see."""
    assert sum(len(list(find(page))) for page in PAGES) >= least


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_paths_are_there(page: Path) -> None:
    for path in paths(page):
        assert (ROOT / path).exists(), path
    for path in spans(page):
        if re.fullmatch(r"(\w+/)+[a-z_]+\.(py|pyx|pxd|h|html)", path):
            assert any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "tidegate", ROOT / "tests")), path


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))


@each_page
def test_options_exist(page: Path) -> None:
    text = re.sub(MOVES, r"\5", TEXTS[page], flags=re.MULTILINE) if page == FRAMEWORKS else TEXTS[page]
    assert options_in(text) - FOREIGN <= options()


def test_the_table_of_moves() -> None:
    """Ours are settings (or name the file of them); uvicorn's, which is installed, are options of that release."""
    flags = {setting.flag for setting in settings().values()} | {"--config"}
    theirs = {option for parameter in uvicorn.main.params for option in parameter.opts}
    rows = [[options_in(cell) for cell in row] for row in re.findall(MOVES, TEXTS[FRAMEWORKS], re.MULTILINE)]
    assert len(rows) > 25
    assert set().union(*(ours for *_, ours in rows)) <= flags
    assert set().union(*(first for first, *_ in rows)) <= theirs


def test_blocks_of_the_frameworks_are_of_their_programs() -> None:
    programs = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "samples" / "programs").glob("*.py")]
    every = re.findall(r"^```(\w*)\n(.*?)^```", TEXTS[FRAMEWORKS], re.MULTILINE | re.DOTALL)
    found = [block for language, block in every if not language]
    assert len(found) > 5
    assert [block for block in found if not any(block in program for program in programs)] == []


@each_page
def test_commands_are_understood(page: Path) -> None:
    for name, *arguments in commands(page):
        command = tidegate.get_command(click.Context(tidegate), name)  # type: ignore[attr-defined]
        assert command is not None, name
        if "--help" not in arguments:
            command.make_context(name, arguments)  # raises what the command would say


def test_there_are_commands() -> None:
    assert {name for page in PAGES for name, *_ in commands(page)} >= {"serve", "check", "reload", "stop", "upgrade"}


@each_page
def test_metrics_exist_with_their_labels(page: Path) -> None:
    labels = {metric.full_name: set(metric.labels) for metric in CATALOG}
    values = {
        (name, label): set(re.findall(r"`([^`]+)`", cells))
        for label, name, cells in re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \|$", reference.metrics(), re.MULTILINE)
    }
    for name, chosen in metrics(page):
        base = name if name in labels else re.sub(r"_(bucket|count|sum)$", "", name)
        assert base in labels, name
        for label, operator, value in re.findall(r'(\w+)(=~?)"([^"]*)"', chosen):
            assert label in labels[base] | {"job", "instance"}, f"{name} has no label {label}"
            for one in value.split("|") if operator == "=~" else [value]:
                assert one in values.get((base, label), {one}), f"{name}: {label} is never {one}"


@each_page
def test_variables_exist(page: Path) -> None:
    known = {setting.environment for setting in settings().values()} | set(OTHERS)
    assert set(re.findall(r"\bTIDEGATE_[A-Z_]*[A-Z]\b", TEXTS[page])) <= known


@each_page
def test_defaults_are_those_of_the_settings(page: Path) -> None:
    by_flag = {setting.flag: setting for setting in settings().values()}
    for flag, value in defaults(page):
        setting = by_flag[flag]
        assert setting.read(value.replace(" ", "")) == setting.default, f"{flag} ({value})"


@each_page
def test_sentences_are_about_somebody_in_particular(page: Path) -> None:
    """A client, an operator, a worker or a proxy does things, and not whoever or nobody."""
    nobody = re.compile(r"\b(?:whoever|whom|somebody|nobody|anybody|everybody)\b", re.IGNORECASE)
    assert nobody.findall(re.sub(r"`[^`]*`", "", prose(page))) == []


@each_page
def test_python_runs(page: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {"__name__": "guide"})


@each_page
def test_signals_exist(page: Path) -> None:
    known = {number.name for number in CAUGHT} | {"SIGABRT", "SIGKILL", "SIGSEGV"}
    assert set(re.findall(r"\bSIG[A-Z0-9]+\b", TEXTS[page])) <= known
    assert "RTMIN" not in TEXTS[page] or signal.SIGRTMIN + 3 == logs.STACKS


def test_the_readme_names_every_signal() -> None:
    table = set(re.findall(r"\bSIG[A-Z0-9]+\b", TEXTS[README]))
    assert table == {number.name for number in CAUGHT} - {"SIGCHLD"}


def test_exit_statuses() -> None:
    def statuses(page: Path) -> set[int]:
        return {int(number) for number in re.findall(r"^\| (\d+) \|", TEXTS[page], re.MULTILINE)}

    daemon = {exit_status.STOPPED, exit_status.UNEXPECTED, exit_status.NOT_LOADED, exit_status.NOT_BOUND}
    asking = {
        *(
            exit_status.DONE,
            exit_status.FAILED,
            exit_status.NOT_RUNNING,
            exit_status.TIMED_OUT,
            exit_status.INTERRUPTED,
        ),
    }
    assert statuses(README) == daemon | {2}
    assert statuses(OPERATING) == asking | {2}


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (text,) = blocks(OPERATING, "toml")
    (tmp_path / "tidegate.toml").write_text(text, encoding="utf-8")
    config = Loader({}, {}, str(tmp_path / "tidegate.toml")).load()
    assert len(config.bind) == 2
    given = dict(re.findall(r'`(TIDEGATE_\w+)="?([^`"]+)"?`', TEXTS[OPERATING]))
    assert len(given) == 2
    assert len(Loader({}, {**given, "TIDEGATE_APPLICATION": "echo:handler"}).load().bind) == 2


def test_every_alert_leads_somewhere() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    page = TEXTS[ROOT / "deploy" / "guides" / "troubleshooting.md"]
    assert sorted(re.findall(r"`(Tidegate\w+)`", page)) == sorted(alerts)


def test_what_the_table_of_names_says() -> None:
    """Modules and names that are said to be there are, in both; what is said not to be is not in ours."""
    rows = re.findall(
        r"^\| (.*websockets\..*) \| (.*) \|$", TEXTS[ROOT / "deploy" / "guides" / "migrating.md"], re.MULTILINE
    )
    assert len(rows) > 5
    for theirs, ours in rows:
        modules = re.findall(r"`(?:websockets)?(\.[a-z][\w.]*[a-z])`", theirs)
        names = re.findall(r"`(\w+)`", theirs)
        if theirs.startswith("loggers"):
            continue
        for module in modules:
            if ours.startswith("not there"):
                with pytest.raises(ModuleNotFoundError):
                    importlib.import_module("tidegate" + module)
            else:
                for package in ("websockets", "tidegate"):
                    found = importlib.import_module(package + module)
                    assert [name for name in names if not hasattr(found, name)] == []


def test_lines_of_the_log_are_as_the_changelog_says() -> None:
    """With ... for what differs from line to line; those of before are no longer there."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src" / "tidegate").rglob("*.py"))
    texts = re.sub(r"%[.\d]*[a-z]|\{[^{}\"]*\}", "...", "".join(sources))
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", TEXTS[ROOT / "deploy" / "guides" / "changelog.md"], re.MULTILINE)
    assert len(rows) > 4
    assert [now for _, now in rows if f'"{now}' not in texts and f'"{now.removeprefix("...")}' not in texts] == []
    assert [before for before, _ in rows if f'"{before}' in texts or f'"{before.removeprefix("...")}' in texts] == []
