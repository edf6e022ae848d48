"""The text of /metrics: what others' parsers make of it."""

import math
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.harness import require
from tidegate._core.scoreboard import Scoreboard
from tidegate.metrics.catalog import CATALOG
from tidegate.metrics.expose import expose, registry

OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = (
    f"{OPENMETRICS};version=1.0.0;q=0.75,{OPENMETRICS};version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
CHANGING = ("tidegate_supervisor_tick_age_seconds", "tidegate_heartbeat_age_seconds")  # and what the system tells


@pytest.fixture
def daemon(board: Scoreboard) -> CollectorRegistry:
    return registry(board)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1..0", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=", "text/plain; version=0.0.4; charset=utf-8"),
        (";;,=;,", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_content_negotiation(daemon: CollectorRegistry, accept: str, kind: str) -> None:
    found, text = expose(daemon, accept)
    assert found.startswith(kind)
    assert text.endswith(b"# EOF\n") == found.startswith(OPENMETRICS)


def test_both_formats_say_the_same(daemon: CollectorRegistry) -> None:
    def samples(families) -> dict[object, float]:
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if family.name not in CHANGING and not family.name.startswith(("tidegate_process_", "tidegate_listen_"))
        }

    plain = samples(parse_text(expose(daemon)[1].decode()))
    openmetrics = samples(parse_openmetrics(expose(daemon, OPENMETRICS)[1].decode()))
    assert plain == openmetrics
    assert len(plain) > 200
    assert not [name for name, value in plain.items() if math.isnan(value)]


def test_openmetrics_has_types_help_and_units(daemon: CollectorRegistry) -> None:
    found = {family.name: family for family in parse_openmetrics(expose(daemon, OPENMETRICS)[1].decode())}
    assert len(found) == len(CATALOG)
    for metric in CATALOG:
        family = found[metric.full_name.removesuffix("_total")]
        assert (family.type, family.documentation, family.unit) == (metric.type, metric.help, metric.unit)


def test_an_empty_scoreboard_parses() -> None:
    empty = registry(Scoreboard.create())
    assert len(list(parse_openmetrics(expose(empty, OPENMETRICS)[1].decode()))) == len(CATALOG)
    assert list(parse_text(expose(empty)[1].decode()))


def test_256_workers_in_two_generations_parse() -> None:
    board = Scoreboard.create()
    for generation in (1, 2):
        for slot in range(256):
            board.spawn(board.assign(slot, generation), slot + 1)
    text = expose(registry(board))[1].decode()
    stages = [
        sample for family in parse_text(text) for sample in family.samples if sample.name == "tidegate_worker_stage"
    ]
    assert sum(sample.value for sample in stages) == 512
    assert {sample.labels["worker"] for sample in stages} == {str(slot) for slot in range(256)}


def test_other_collectors_can_join(daemon: CollectorRegistry) -> None:
    Counter("chat_joins", "Of an application.", registry=daemon).inc(3)
    assert b"\nchat_joins_total 3.0\n" in expose(daemon)[1]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("tidegate_handshakes", "Not an application's.", registry=daemon)


def test_promtool_has_no_complaint(daemon: CollectorRegistry) -> None:
    promtool = shutil.which("promtool")
    require(promtool, "promtool (Debian package prometheus)")
    assert promtool is not None
    done = subprocess.run([promtool, "check", "metrics"], input=expose(daemon)[1], capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
