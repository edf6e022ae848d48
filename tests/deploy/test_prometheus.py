"""deploy/prometheus: promtool understands it, every alert has series with which it fires and some with which it does
not, and what it names exists.

What must not live here: a Prometheus that runs (test_monitoring.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.harness import ROOT, require
from tests.support.patience import PATIENCE
from tidegate._core.counters import CLOSE_CODES, ENGINES, FIELDS, HANDSHAKE_RESULTS, LIMITS
from tidegate._core.snapshot import EXIT_REASONS, STAGES
from tidegate.admin.status import Connections
from tidegate.metrics.catalog import CATALOG
from tidegate.metrics.derived import BACKOFF

FOLDER = ROOT / "deploy" / "prometheus"
ALERTS = FOLDER / "alerts.yml"
ALERT_TESTS = FOLDER / "alerts.test.yml"
CONFIG = FOLDER / "prometheus.yml"
DASHBOARD = ROOT / "grafana" / "dashboards" / "tidegate.json"

KNOWN = {metric.full_name: metric for metric in CATALOG}


def only_names(counter: str) -> tuple[str, ...]:
    """Return the names of a counter that has one dimension."""
    (names,) = FIELDS[counter].names
    return names


# Label -> its values, where they are a closed set.
VALUES = {
    "stage": {*STAGES, BACKOFF},
    "reason": set(EXIT_REASONS),
    "result": {*HANDSHAKE_RESULTS, "success", "failure", *only_names("bus_resumes")},
    "outcome": {*only_names("bus_gaps"), *only_names("bus_reads")},
    "engine": set(ENGINES),
    "limit": set(LIMITS),
    "code": set(CLOSE_CODES),
    "state": set(Connections.__struct_fields__),
}


def promtool(*arguments: object, folder: Path = FOLDER) -> str:
    """What promtool says, which must be content."""
    program = shutil.which("promtool")
    require(program, "promtool (Debian package prometheus)")
    done = subprocess.run(
        [str(program), *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[str]:
    """The names of the alerts."""
    return re.findall(r"^ *- alert: (\w+)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)


def metric_of(name: str) -> str:
    """What the catalog calls a series: those of a histogram have three names more."""
    return name if name in KNOWN else re.sub(r"_(bucket|sum|count)$", "", name)


def test_promtool_understands_them() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "config", CONFIG)


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", ALERT_TESTS.name)


def test_every_alert_has_series_for_both() -> None:
    tests = re.split(r"^  - name: ", ALERT_TESTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    fires, quiet = set(), set()
    for test in tests:
        title = re.match(r'"(\w+) (fires|is quiet): ', test)
        assert title, test
        asked = re.search(r'expr: ALERTS\{alertname="(\w+)",alertstate="firing"\}$', test, re.MULTILINE)
        assert asked, test
        assert asked[1] == title[1]
        expected = re.search(r"exp_samples:( \[\])?$", test, re.MULTILINE)
        assert expected, test
        (quiet if expected[1] else fires).add(title[1])
        assert bool(expected[1]) == (title[2] == "is quiet"), test
    assert fires == quiet == set(alerts())
    assert len(alerts()) == len(set(alerts()))


@pytest.mark.slow
@pytest.mark.parametrize("alert", alerts())
def test_a_broken_alert_would_be_noticed(alert: str, tmp_path: Path) -> None:
    """One that never fires, or always, fails its tests."""
    whole = ALERTS.read_text(encoding="utf-8")
    before, name, after = whole.partition(f"- alert: {alert}\n")
    assert name
    # Only its own: all of them take seconds.
    tests = re.split(r"^(?=  - name: )", ALERT_TESTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    own = [test for test in tests[1:] if test.startswith(f'  - name: "{alert} ')]
    (tmp_path / ALERT_TESTS.name).write_text(tests[0] + "".join(own), encoding="utf-8")
    for expression in ("vector(0) > 1", 'label_replace(vector(1), "job", "tidegate", "", "")'):
        broken = re.sub(r"expr:(.|\n)*?(?=\n +(for|labels):)", f"expr: {expression}", after, count=1)
        assert broken != after
        (tmp_path / ALERTS.name).write_text(before + name + broken, encoding="utf-8")
        with pytest.raises(AssertionError, match="FAILED"):
            promtool("test", "rules", ALERT_TESTS.name, folder=tmp_path)


def test_what_people_read(tmp_path: Path) -> None:
    """The texts of the alerts that fire, with their labels and values in them."""
    shutil.copy(ALERTS, tmp_path)
    tests = re.split(r"^(?=  - name: )", ALERT_TESTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    asking = tests[0]
    for test in tests[1:]:
        if " fires: " in test:
            series, _, rest = test.partition("    promql_expr_test:\n")
            name, moment = re.search(r'alertname="(\w+)"', rest), re.search(r"eval_time: (\w+)", rest)
            assert name
            assert moment
            asking += f"{series}    alert_rule_test:\n"
            asking += f"      - {{alertname: {name[1]}, eval_time: {moment[1]}, exp_alerts: []}}\n\n"
    (tmp_path / ALERT_TESTS.name).write_text(asking, encoding="utf-8")
    with pytest.raises(AssertionError) as failed:  # none is expected, so promtool tells of each
        promtool("test", "rules", ALERT_TESTS.name, folder=tmp_path)
    told = str(failed.value)
    found = dict(re.findall(r'Labels:\{alertname="(\w+)".*\n *Annotations:\{(.*)\}', told))
    assert set(found) == set(alerts())
    for name, text in found.items():
        assert not re.search(r"\{\{|\}\}|<no value>|error (expanding|executing|calling)|%!|NaN|\d\.\d{6}", text), (
            f"{name}: {text}"
        )
        assert re.search(r'summary=".*\b(a|tidegate)\b', text), f"{name} does not say who: {text}"


def test_every_alert_says_what_is_to_be_done() -> None:
    blocks = re.split(r"^ *- alert: ", ALERTS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(re.findall(r"\balert:", ALERTS.read_text(encoding="utf-8"))) > 0
    for block in blocks:
        assert re.search(r"labels: \{severity: (critical|warning)\}", block), block
        assert re.search(r"summary: \S", block), block
        assert re.search(r"description: \S", block), block


@pytest.mark.parametrize("path", [ALERTS, ALERT_TESTS, DASHBOARD], ids=lambda path: path.name)
def test_what_is_named_exists(path: Path) -> None:
    """Metrics, their labels, and the values of labels."""
    text = path.read_text(encoding="utf-8").replace('\\"', '"')
    assert {metric_of(name) for name in re.findall(r"\btidegate_\w+", text)} <= set(KNOWN)
    for name, selector in re.findall(r"\b(tidegate_\w+)\{([^{}]*)\}", text):
        for label, operator, value in re.findall(r'(\w+)(!~|=~|!=|=)"([^"]*)"', selector):
            assert label in {"job", "instance", "le", *KNOWN[metric_of(name)].labels}, f"{name} has no {label}"
            if label in VALUES:
                assert set(value.split("|") if "~" in operator else [value]) <= VALUES[label], (name, label, value)


@pytest.mark.parametrize("path", [ALERTS, CONFIG, DASHBOARD], ids=lambda path: path.name)
def test_options_that_are_named_exist(path: Path) -> None:
    from tidegate.cli.serve import command

    options = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+\b", path.read_text(encoding="utf-8"))) <= options
