"""Reference pages of the guides, generated from declarations: every setting, every metric.

    python -m tidegate.cli.reference deploy/guides    writes configuration.md and metrics.md there

    configuration    every setting, from config/schema.py
    metrics          every metric, from metrics/catalog.py

What must not live here: the help of a setting or a metric (its declaration), other pages.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..config.schema import Setting, settings
from ..ipc.exit_status import DONE, USAGE

__all__ = ["PAGES", "configuration", "main", "metrics"]

# The sections of a page: the name of what each begins with, and its title.
SETTINGS = {
    "bind": "Addresses and workers",
    "drain": "Ends, restarts and reloads",
    "backlog": "Connections",
    "origins": "Limits",
    "trusted_proxies": "Proxies",
    "certfile": "TLS",
    "log_level": "Log",
    "pidfile": "The process",
    "bus": "Channels",
}
METRICS = {
    "build_info": "The daemon",
    "workers_desired": "Workers",
    "reloads_total": "What is done to the daemon",
    "process_cpu_seconds_total": "Processes",
    "accept_queue_length": "The kernel's queues",
    "connections": "Connections",
    "messages_received_total": "Messages",
    "bus_up": "Channels",
    "bus_hub_restarts_total": "The hub",
}

BAR = r"\|"  # within a table
_GENERATED = (
    "<!-- Written by `python -m tidegate.cli.reference deploy/guides`: change what it is made from, not this. -->"
)

_CONFIGURATION = """
Each setting of `tidegate serve` has one name in four places. `--ping-interval 10` on the command line is
`TIDEGATE_PING_INTERVAL=10` in the environment, `ping_interval = 10` in the file of `--config`, and, where it is marked
with a star, the parameter `ping_interval` of `tidegate.serve()`. The environment has precedence over the file, and the
command line over both. `tidegate serve ... --print-config` prints the values in effect and where they come from;
`tidegate check ...` tries them.

Times are in seconds, or with a unit: `500ms`, `2m`. Sizes are in bytes, or with a unit: `64KiB`, `1MB`. A
setting that may be given several times is an array in a file, and its values are separated by spaces in the
environment. A name that is not a setting is an error, in all of these places.

*Changed by* says how a running daemon gets another value: by a `reload` (`tidegate reload`, SIGHUP), or by a `start`
only: a reload with such a change fails, and changes nothing.
"""

_METRICS = """
The metrics at `/metrics` of the admin address. The label `worker` is the number of the worker's slot, from 0: a
successor continues the series of its predecessor, and sums over workers never go backwards. For processes and queues
that belong to no slot, the label is `supervisor`, `admin` or `shared`. No label has a path, a user or an address.

Metrics that the application makes with [prometheus_client](https://prometheus.github.io/client_python/) are there as
well, summed over the workers: each `Counter`, `Histogram`, `Summary` and `Gauge`, whenever it is made. This is the
multiprocess mode of that library; the daemon creates its directory (`PROMETHEUS_MULTIPROC_DIR`) at its start, keeps it
over reloads and upgrades, and removes it at its end. A `Gauge` should have a `multiprocess_mode`, which says how the
values of several workers are combined: with `livesum`, for example, those of live workers are summed. In the modes
`all` and `liveall` the label `pid` distinguishes workers, by a small number that is not the process id. Avoid names
that begin with `tidegate_`: a metric with one of the names below is left out, and the log says so.
"""


def configuration() -> str:
    """Return the page of settings: allowed values, default, help."""

    def row(setting: Setting) -> tuple[str, ...]:
        default = setting.default_text or f"`{setting.write(setting.default)}`"
        return (
            f"`{setting.flag}`{' *' if setting.served else ''}",
            setting.kind.allowed,
            default,
            setting.help,
            "start" if setting.fixed else "reload",
        )

    head = ("setting", "give", "default", "what it does", "changed by")
    options = {name: row(setting) for name, setting in settings().items() if not setting.positional}
    (application,) = (setting for setting in settings().values() if setting.positional)
    text = f"`tidegate serve {application.flag} ...` serves {application.kind.allowed}: {application.help[0].lower()}"
    text += f"{application.help[1:]} It may be in the environment and in the file as well, as `{application.key}`."
    text = textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
    return _page("Configuration", [_CONFIGURATION.strip(), text, *_sections(SETTINGS, head, options)])


def metrics() -> str:
    """Return the page of metrics: type, labels and their values, help, buckets."""
    from .._core.scoreboard import Scoreboard
    from ..metrics.catalog import CATALOG
    from ..metrics.collect import ScoreboardCollector

    board = Scoreboard.create()
    board.assign(0, 1)
    labels: dict[str, dict[str, list[str]]] = {}  # metric -> label -> values
    for family in ScoreboardCollector(board).collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values = labels.setdefault(_base(sample.name), {}).setdefault(label, [])
                if value not in values:
                    values.append(value)
    board.close()
    rows = {
        metric.name: (f"`{metric.full_name}`", metric.type, _code(metric.labels), metric.help) for metric in CATALOG
    }
    closed = [
        (f"`{label}`", f"`{metric.full_name}`", _code(labels[metric.full_name][label]))
        for metric in CATALOG
        for label in metric.labels
        if label != "worker" and metric.name != "build_info" and label in labels.get(metric.full_name, {})
    ]
    buckets = [
        (f"`{metric.full_name}`", ", ".join(labels[metric.full_name]["le"]))
        for metric in CATALOG
        if metric.type == "histogram"
    ]
    return _page(
        "Metrics",
        [
            _METRICS.strip(),
            *_sections(METRICS, ("metric", "type", "labels", "what it means"), rows),
            "## Values of labels",
            _table(("label", "of", "values"), closed),
            "## Buckets of histograms",
            "Upper bounds, in the unit of the metric. Each histogram has `_bucket`, `_count` and `_sum`.",
            _table(("metric", "buckets"), buckets),
        ],
    )


PAGES: Mapping[str, Callable[[], str]] = {"configuration.md": configuration, "metrics.md": metrics}


def main(arguments: Sequence[str]) -> int:
    """Write every page into a folder; return the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m tidegate.cli.reference FOLDER", file=sys.stderr)
        return USAGE
    for name, write in PAGES.items():
        (Path(arguments[0]) / name).write_text(write(), encoding="utf-8")
    return DONE


def _base(sample: str) -> str:
    """Return the name of a sample's metric."""
    return sample.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _page(title: str, parts: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", _GENERATED, *parts]) + "\n"


def _sections(titles: Mapping[str, str], head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a title and a table for each section; a row that no section names follows the row declared before it."""
    tables: dict[str, list[Sequence[str]]] = {}
    title = next(iter(titles.values()))
    for name, row in rows.items():
        title = titles.get(name, title)
        tables.setdefault(title, []).append(row)
    for title, found in tables.items():
        yield f"## {title}"
        yield _table(head, found)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', BAR) for text in line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
