"""A real Prometheus scrapes a real daemon under load, with a crash and a reload: every query of the dashboard and every
alert works, and the numbers are those that the clients counted.

What must not live here: Prometheus, clients (monitoring.py), what can be checked without either (test_grafana.py,
test_prometheus.py).
"""

from __future__ import annotations

import asyncio
import math
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from grafana import dashboard
from tests.deploy.monitoring import SCRAPE_SECONDS, Load, Prometheus, Series
from tests.support.harness import Daemon, wait_until

pytestmark = pytest.mark.slow

WINDOW = 5  # scrapes, of $__rate_interval; Grafana takes four or more
CLIENTS = 20

OPTIONS = ("--ping-interval", "0.5", "--graceful-timeout", "10", "--settle", "0.5", "--max-size", str(Load.MAX_SIZE))
DRAIN = 3.0

PANELS = [(row, panel) for row, panels in dashboard.ROWS for panel in panels]


@dataclass
class Story:
    """What happened: times are Unix times."""

    daemon: Daemon
    prometheus: Prometheus
    load: Load
    start: float
    steady: tuple[float, float]
    """When all clients talked."""
    reloaded: float
    end: float = 0.0

    def expanded(self, query: str, instance: str = "", worker: str = ".+") -> str:
        """A query as Grafana sends it; by default the daemon under its first name is chosen, with all workers."""
        values = {"job": ".+", "instance": instance or self.daemon.admin, "worker": worker}
        values["__range"] = f"{math.ceil(self.end - self.start)}s"
        values["__rate_interval"] = f"{WINDOW * SCRAPE_SECONDS}s"
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], dashboard.expanded(query))

    def panel(self, row: str, title: str, **chosen: str) -> dict[str, Series]:
        """Legend -> what a panel shows."""
        (panel,) = (panel for name, panel in PANELS if (name, panel.title) == (row, title))
        shown = {}
        for query, legend in panel.queries.items():
            start = self.end if panel.range else math.floor(self.start)
            shown[legend] = self.prometheus.range(self.expanded(query, **chosen), start, self.end)
        return shown


async def gone(client: ClientConnection) -> ClientConnection:
    await client.wait_closed()
    return client


async def live(daemon: Daemon, prometheus: Prometheus) -> Story:
    """Some talk, some end in every way there is, a worker is killed, and a reload has everybody come back."""
    load = Load(daemon)
    start = time.time()
    clients = [await load.connect() for _ in range(CLIENTS)]
    first = time.time()
    await asyncio.gather(*(load.talk(client, 80, 0.1) for client in clients))
    steady = (first, time.time())

    ends = [1000, 1000, 1000, 1000, 3001, 3001, 3001, 4001, 4001, 1011, 1011, 1009, 1006, 1006, 1006]
    await asyncio.gather(*(load.end(client, code) for client, code in zip(clients, ends, strict=False)))
    await asyncio.gather(*(load.refused() for _ in range(4)))
    for client in clients[len(ends) :]:
        await load.end(client, 1000)
    await asyncio.to_thread(daemon.wait_metric, "tidegate_closes_total", load.closes.total())

    clients = [await load.connect() for _ in range(CLIENTS)]
    victims = int((await asyncio.to_thread(daemon.metrics)).total("tidegate_connections", worker=0, state="open"))
    assert 0 < victims < CLIENTS
    daemon.signal(signal.SIGKILL, daemon.workers()[0])
    await asyncio.to_thread(daemon.wait_metric, "tidegate_worker_spawns_total", 2, worker=0)
    await asyncio.to_thread(daemon.wait_metric, "tidegate_worker_stage", 2, stage="ready")
    # Its clients are cut, and come back; nobody else is.
    for client in asyncio.as_completed([asyncio.create_task(gone(client)) for client in clients]):
        clients.remove(await client)
        clients.append(await load.connect())
        victims -= 1
        if not victims:
            break
    await asyncio.to_thread(daemon.wait_metric, "tidegate_connections", CLIENTS, state="open")

    daemon.signal(signal.SIGHUP)
    await asyncio.gather(*(load.end(client, 1001) for client in clients))
    await asyncio.to_thread(daemon.wait_metric, "tidegate_drain_duration_seconds_count", 2)
    reloaded = time.time()

    clients = [await load.connect() for _ in range(CLIENTS)]
    await asyncio.gather(*(load.talk(client, 20, 0.05) for client in clients))
    await asyncio.gather(*(load.end(client, 1000) for client in clients))
    await asyncio.to_thread(daemon.wait_metric, "tidegate_closes_total", load.closes.total())
    return Story(daemon, prometheus, load, start, steady, reloaded)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with (
        Daemon(Load.APPLICATION, *OPTIONS, target="application:app", workers=2, drain=DRAIN) as daemon,
        Prometheus(daemon.admin) as prometheus,
    ):
        story = asyncio.run(live(daemon, prometheus))
        prometheus.catch_up()
        # Until rates are 0 again, not all that happened is in them.
        last = f"sum(rate(tidegate_closes_total[{WINDOW * SCRAPE_SECONDS}s]))"
        wait_until(lambda: prometheus.query(f"{last} == 0"), "the end of the rates' window", 3 * WINDOW)
        story.end = math.floor(time.time())
        yield story


# What this application has not -> who has it.
NOT_HERE = {"HTTP request duration": "ASGI applications", "Probes": "engines other than local://"}


@pytest.mark.parametrize("chosen", [{"instance": ".+"}, {"worker": "1"}], ids=["all", "one"])
@pytest.mark.parametrize(("row", "panel"), PANELS, ids=[f"{row}: {panel.title}" for row, panel in PANELS])
def test_every_query_returns_data(story: Story, row: str, panel: dashboard.Panel, chosen: dict[str, str]) -> None:
    """Of several instances, and of one worker of one."""
    for legend, series in story.panel(row, panel.title, **chosen).items():
        assert series, f"{legend}: no series"
        if panel.title in NOT_HERE:
            continue
        assert any(math.isfinite(value) for _, points in series for _, value in points), f"{legend}: no value"
        # Labels of the legend are there, or it reads as an empty word.
        for labels, _ in series:
            assert set(re.findall(r"{{(\w+)}}", legend)) <= set(labels), (legend, labels)


def test_variables_have_their_values(story: Story) -> None:
    values = {}
    for variable in dashboard.variables():
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert match
            selector = story.expanded(match[1], instance=".+")
            values[variable["name"]] = story.prometheus.ask(f"label/{match[2]}/values", {"match[]": selector})
    assert values == {"job": ["tidegate"], "instance": sorted(story.prometheus.targets), "worker": ["0", "1"]}


def marks(story: Story, name: str) -> Series:
    (found,) = (found for found in dashboard.ANNOTATIONS if found.name == name)
    return story.prometheus.range(story.expanded(found.query), story.start - 5, story.end)


def test_annotations_are_where_something_happened(story: Story) -> None:
    ((_, starts),) = marks(story, "Starts")
    (started,) = {value / 1000 for _, value in starts}
    assert started <= story.start
    ((_, reloads),) = marks(story, "Reloads")
    (reloaded,) = {value / 1000 for _, value in reloads}
    assert story.steady[1] < reloaded < story.reloaded
    ((deployed, _),) = marks(story, "Deploys")
    assert {"version", "python"} <= set(deployed)
    ((configured, _),) = marks(story, "Settings")
    assert configured["hash"]
    ((crashed, moments),) = marks(story, "Crashes")
    assert (crashed["worker"], crashed["reason"]) == ("0", "oom_suspect")
    assert story.steady[1] < moments[0][0] < reloaded + WINDOW


def test_prometheus_has_no_complaint(story: Story) -> None:
    targets = story.prometheus.ask("targets")["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")] * 2
    rules = [rule for group in story.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert rules
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules} == {
        rule["name"]: ("ok", None) for rule in rules
    }
    assert story.prometheus.log == ""


def test_counters_are_what_the_clients_counted(story: Story) -> None:
    """To the last message, over a crash and a reload."""

    def by(labels: str, metric: str) -> dict[Any, float]:
        found = story.prometheus.query(story.expanded(f"sum by ({labels}) ({metric}{{@}}) > 0"), story.end)
        return {tuple(series[label] for label in labels.split(", ")): value for series, value in found}

    load = story.load
    for direction in ("received", "sent"):
        counted = {(opcode,): count for (way, opcode), count in load.messages.items() if way == direction}
        assert by("opcode", f"tidegate_messages_{direction}_total") == counted
        assert by("job", f"tidegate_{direction}_bytes_total") == {("tidegate",): load.bytes[direction]}
    assert by("code", "tidegate_closes_total") == {(code,): count for code, count in load.closes.items()}
    assert by("result", "tidegate_handshakes_total") == {(result,): n for result, n in load.handshakes.items()}
    assert by("job", "tidegate_connections_accepted_total") == {("tidegate",): load.handshakes.total()}
    assert by("job", "tidegate_connections") == {}
    # Histograms tell of the same.
    for direction in ("received", "sent"):
        total = sum(count for (way, _), count in load.messages.items() if way == direction)
        assert by("direction", "tidegate_message_size_bytes_count")[direction,] == total
        assert by("direction", "tidegate_message_size_bytes_sum")[direction,] == load.bytes[direction]
    assert by("job", "tidegate_handshake_duration_seconds_count") == {("tidegate",): load.handshakes.total()}
    assert by("job", "tidegate_connection_duration_seconds_count") == {("tidegate",): load.closes.total()}


def test_connections_are_those_that_were_open(story: Story) -> None:
    ((_, points),) = story.panel("At a glance", "Connections")["open"]
    start, end = story.steady
    steady = [value for moment, value in points if start + 2 * SCRAPE_SECONDS < moment < end]
    assert len(steady) >= 3
    assert set(steady) == {CLIENTS}
    by_worker = story.panel("Connections", "Connections by worker")
    (series,) = by_worker.values()
    moment = math.floor(end)
    assert sum(dict(points)[moment] for _, points in series if moment in dict(points)) == CLIENTS


def test_messages_are_counted_within_a_scrape(story: Story) -> None:
    """At each moment, what was scraped then is between what was answered a scrape before and sent a scrape after."""
    series = story.prometheus.samples(story.expanded("tidegate_messages_received_total{@}"), *story.steady)
    moments = sorted({moment for _, points in series for moment, _ in points})
    assert len(moments) >= 5
    for moment in moments:
        value = sum(dict(points)[moment] for _, points in series)
        least, most = story.load.done(moment - SCRAPE_SECONDS)[1], story.load.done(moment + SCRAPE_SECONDS)[0]
        assert least <= value <= most


def area(series: Series) -> float:
    """What rates add up to."""
    return sum(value * SCRAPE_SECONDS for _, points in series for _, value in points if math.isfinite(value))


def test_panels_show_what_the_clients_counted(story: Story) -> None:
    """Of its window a rate misses what was before the first scrape in it, or after the last: on average one of them."""
    load = story.load
    traffic = story.panel("Traffic", "Messages")
    glance = story.panel("At a glance", "Messages")
    payload = story.panel("Traffic", "Payload")
    for direction in ("received", "sent"):
        counted = sum(count for (way, _), count in load.messages.items() if way == direction)
        shown = {
            labels["opcode"]: area([(labels, points)]) for labels, points in traffic[f"{direction} {{{{opcode}}}}"]
        }
        expected = {opcode: count for (way, opcode), count in load.messages.items() if way == direction}
        assert shown == pytest.approx(expected, rel=1.5 / WINDOW)
        assert area(glance[direction]) == pytest.approx(counted, rel=1.5 / WINDOW)
        assert area(payload[direction]) == pytest.approx(load.bytes[direction], rel=1.5 / WINDOW)
    accepted = story.panel("At a glance", "Accepted")["accepted"]
    assert area(accepted) == pytest.approx(load.handshakes.total(), rel=1.5 / WINDOW)
    handshakes = story.panel("Connections", "Handshakes by result")["{{result}}"]
    shown = {labels["result"]: area([(labels, points)]) for labels, points in handshakes}
    assert {result: n for result, n in shown.items() if n} == pytest.approx(load.handshakes, rel=1.5 / WINDOW)
    closes = story.panel("Health of connections", "Closes by code")["{{code}}"]
    shown = {labels["code"]: area([(labels, points)]) for labels, points in closes}
    assert {code: n for code, n in shown.items() if n} == pytest.approx(load.closes, rel=1.5 / WINDOW)


def test_closes_in_the_time_shown(story: Story) -> None:
    """Of a window so much longer than a scrape, hardly anything is missing."""
    series = story.panel("Health of connections", "Closes in the time shown")["{{code}}"]
    scrapes = (story.end - story.start) / SCRAPE_SECONDS
    assert {labels["code"]: points[-1][1] for labels, points in series} == pytest.approx(
        story.load.closes, rel=3 / scrapes
    )
    ((_, points),) = story.panel("At a glance", "Abnormal closes")["1006"]
    assert points[-1][1] == pytest.approx(story.load.closes["1006"] / story.load.closes.total(), rel=6 / scrapes)


def test_an_alert_reaches_the_dashboard(story: Story) -> None:
    """A reload that fails, and then one that does not. Last, since the daemon is not as before."""
    (query,) = next(panel for panel in dashboard.GLANCE if panel.title == "Alerts").queries
    failed = 'ALERTS{alertname="TidegateReloadFailed",alertstate="firing"}'
    assert story.prometheus.query(failed) == []
    application = story.daemon.directory / "application.py"
    good = application.read_text(encoding="utf-8")

    application.write_text("raise RuntimeError('as the test asked')\n", encoding="utf-8")
    story.daemon.signal(signal.SIGHUP)
    wait_until(lambda: len(story.prometheus.query(failed)) == 2, "the alert, of both instances")
    ((_, firing),) = story.prometheus.query(story.expanded(query))
    assert firing >= 2

    application.write_text(good, encoding="utf-8")
    story.daemon.signal(signal.SIGHUP)
    wait_until(lambda: not story.prometheus.query(failed), "its end")


def test_a_daemon_with_a_token_is_scraped() -> None:
    """With the lines that the scrape configuration has for it."""
    token = "a-token.that_nobody~guesses"
    with Daemon(Load.APPLICATION, env={"TIDEGATE_ADMIN_TOKEN": token}) as daemon:
        assert daemon.get("/metrics")[0] == 401
        with Prometheus(daemon.admin, token) as prometheus:
            assert [value for _, value in prometheus.query("up")] == [1, 1]
