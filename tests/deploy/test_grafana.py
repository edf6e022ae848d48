"""grafana: the dashboard is what its tables say, and a dashboard; the provisioning files fit it.

What must not live here: what the panels' queries return (test_monitoring.py), the names of metrics in them
(test_prometheus.py).
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from grafana import dashboard
from tests.support.harness import ROOT
from tidegate.metrics.catalog import CATALOG

BOARD: dict[str, Any] = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
PROVISIONING = ROOT / "grafana" / "provisioning"

# Those that Grafana knows and we use: a wrong one is shown as text behind the number.
UNITS = {"none", "short", "s", "bytes", "Bps", "percentunit", "cps"}
TYPES = {"row", "stat", "timeseries", "heatmap"}

# Metrics that no panel shows, since they are annotations.
ELSEWHERE = {
    "tidegate_start_time_seconds",
    "tidegate_last_reload_timestamp_seconds",
    "tidegate_config_hash_info",
}


# Metrics that are nowhere on it: whether a panel would help an operator is for the author to say.
UNSHOWN: set[str] = set()


def queries() -> Iterator[str]:
    """Every query of a panel."""
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])


def test_the_file_is_up_to_date() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text(), f"run {sys.executable} grafana/dashboard.py"


def test_panels_fill_the_grid_without_overlap() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= dashboard.COLUMNS, panel["title"]
        taken.update((x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"]))  # fmt: skip
    assert set(taken.values()) == {1}
    assert len(taken) == dashboard.COLUMNS * (1 + max(y for _, y in taken)), "a row has a hole"


def test_rows_are_in_the_order_of_an_operators_questions() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        *("At a glance", "Connections", "Traffic", "Health of connections", "Channels", "Workers", "Kernel"),
        "Reloads, upgrades and drains",
    ]


def test_numbers_and_titles_are_unique() -> None:
    assert max(Counter(panel["id"] for panel in BOARD["panels"]).values()) == 1
    for _, row in dashboard.ROWS:
        assert max(Counter(panel.title for panel in row).values()) == 1


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    assert panel["type"] in TYPES
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == dashboard.DATASOURCE
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)
    for target in panel["targets"]:
        assert target["datasource"] == dashboard.DATASOURCE
        assert target["legendFormat"]
        assert "@" not in target["expr"]
        # The window of a rate is Grafana's choice: with a constant one, zooming out would skip what was between.
        assert set(re.findall(r"\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval", "$__range"}
        assert target["instant"] == ("$__range" in target["expr"])
        # A legend names labels that the query leaves.
        grouping = re.match(r"[a-z(]*sum by \(([^)]*)\)", target["expr"])
        if grouping:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(grouping[1].split(", "))


def test_every_series_is_chosen_by_the_variables() -> None:
    names = [variable["name"] for variable in BOARD["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "worker"]
    for query in [*queries(), *(marks["expr"] for marks in BOARD["annotations"]["list"])]:
        for name, selector in re.findall(r"\b(tidegate_\w+)(\{[^}]*\})?", query):
            assert selector.startswith("{" + dashboard.DAEMON), (name, query)
        assert set(re.findall(r"\$(?!__)(\w+)", query)) <= set(names)


@pytest.mark.parametrize("marks", BOARD["annotations"]["list"], ids=lambda marks: marks["name"])
def test_an_annotation(marks: dict[str, Any]) -> None:
    assert marks["datasource"] == dashboard.DATASOURCE
    assert marks["useValueForTime"] is ("timestamp" in marks["expr"] or "start_time" in marks["expr"])
    assert marks["expr"].startswith("1000 * ") == marks["useValueForTime"], "Grafana wants milliseconds"
    # Events of one series that are no further apart are one.
    assert marks["step"] == "15s"


def test_every_metric_is_on_it() -> None:
    shown = set(re.findall(r"\btidegate_\w+", " ".join(queries())))
    shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {metric.full_name for metric in CATALOG} - shown == ELSEWHERE | UNSHOWN
    marks = " ".join(marks["expr"] for marks in BOARD["annotations"]["list"])
    assert {name for name in ELSEWHERE if name in marks} == ELSEWHERE


def test_the_program_needs_nothing_that_must_be_installed() -> None:
    tree = ast.parse((ROOT / "grafana" / "dashboard.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= set(sys.stdlib_module_names) | {"collections.abc"}


def test_provisioning() -> None:
    """The data source and the dashboard's provider fit the dashboard and Prometheus' configuration."""
    datasource = (PROVISIONING / "datasources" / "tidegate.yml").read_text(encoding="utf-8")
    provider = (PROVISIONING / "dashboards" / "tidegate.yml").read_text(encoding="utf-8")
    assert re.search(r"^    type: prometheus$", datasource, re.MULTILINE)
    (variable,) = (found for found in BOARD["templating"]["list"] if found["type"] == "datasource")
    assert variable["query"] == "prometheus"
    # The rates' windows are right only if both files agree.
    interval = re.search(r"^ *timeInterval: (\w+)$", datasource, re.MULTILINE)
    scraped = re.search(
        r"^ *scrape_interval: (\w+)$",
        (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert interval
    assert scraped
    assert interval[1] == scraped[1]
    assert re.search(r"^    type: file$", provider, re.MULTILINE)
    assert dashboard.FILE.parent.name == "dashboards"
