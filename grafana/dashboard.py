"""The dashboard as tables, and the program that writes them as Grafana's JSON: dashboards/tidegate.json.

    python grafana/dashboard.py

A panel is a line of `ROWS`: title, unit, what it tells, and its queries with their legends. In a query `@` is the
choice of job and instance, `@w` of the worker too, and `[~]` the window that rates are taken over.
What must not live here: anything that must be installed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).parent / "dashboards" / "tidegate.json"

COLUMNS = 24  # of Grafana's grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DAEMON = 'job=~"$job",instance=~"$instance"'
WORKER = f'{DAEMON},worker=~"$worker"'
BAD_EXITS = "crash|signal|hung|oom_suspect|boot_failed"

Kind = Literal["stat", "lines", "stack", "heatmap"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows, in a few words.
        unit: Grafana's name for the unit; of a heatmap, that of its buckets.
        tells: what an operator reads from it.
        queries: PromQL -> legend.
        kind: stat: the newest value; lines; stack: lines on top of each other; heatmap: of a histogram's buckets.
        width: in columns.
        steps: values from which it is orange and red; with two equal ones, red at once.
        range: the queries are about the whole time shown, not about each moment.
    """

    title: str
    unit: str
    tells: str
    queries: dict[str, str]
    kind: Kind = "lines"
    width: int = 8
    steps: tuple[float, ...] = ()
    range: bool = False


def quantiles(metric: str, selector: str = "@", *, by: str = "", legend: str = "") -> dict[str, str]:
    """Queries of the median and of the slowest hundredth of a histogram."""
    grouping = f"{by}, le" if by else "le"
    buckets = f"sum by ({grouping}) (rate({metric}_bucket{{{selector}}}[~]))"
    return {f"histogram_quantile({q}, {buckets})": f"{legend}{name}" for q, name in ((0.5, "p50"), (0.99, "p99"))}


def heat(metric: str, selector: str = "@") -> dict[str, str]:
    """The query of a heatmap."""
    return {f"sum by (le) (increase({metric}_bucket{{{selector}}}[~]))": "{{le}}"}


GLANCE = (
    Panel("Workers", "none", "Slots with a ready worker, and how many there should be.",
          {'sum(tidegate_worker_stage{@,stage="ready"} > bool 0)': "ready",
           "sum(tidegate_workers_desired{@})": "desired"},
          "stat", 3),
    Panel("Connections", "short", "Open connections.",
          {'sum(tidegate_connections{@w,state="open"})': "open"}, "stat", 3),
    Panel("Accepted", "cps", "Connections accepted a second.",
          {"sum(rate(tidegate_connections_accepted_total{@w}[~]))": "accepted"}, "stat", 3),
    Panel("Messages", "cps", "Messages a second, of all workers.",
          {"sum(rate(tidegate_messages_received_total{@w}[~]))": "received",
           "sum(rate(tidegate_messages_sent_total{@w}[~]))": "sent"},
          "stat", 3),
    Panel("Loop lag p99", "s",
          "How late the event loops are. Clients wait that long, whatever they ask: too little processor time, or a "
          "handler that blocks.",
          {"histogram_quantile(0.99, sum by (le) (rate(tidegate_event_loop_lag_seconds_bucket{@w}[~])))": "p99"},
          "stat", 3, (0.05, 0.25)),
    Panel("Abnormal closes", "percentunit",
          "Share of the closes in the time shown that were without a close handshake: lost networks, killed clients, "
          "or a proxy's timeout.",
          {'sum(increase(tidegate_closes_total{@,code="1006"}[$__range]))'
           " / (sum(increase(tidegate_closes_total{@}[$__range])) > 0) or vector(0)": "1006"},
          "stat", 3, (0.05, 0.2), range=True),
    Panel("Alerts", "none", "Alerts of deploy/prometheus/alerts.yml that fire.",
          {'count(ALERTS{alertname=~"Tidegate.+",alertstate="firing",job=~"$job"}) or vector(0)': "firing"},
          "stat", 3, (1, 1)),
    Panel("Versions", "none", "How many daemons run which version; more than one kind only during a deploy.",
          {"count by (version, python) (tidegate_build_info{@})": "{{version}} on Python {{python}}"}, "stat", 3),
)  # fmt: skip

CONNECTIONS = (
    Panel("Connections by worker", "short", "All connections, whatever their state.",
          {"sum by (instance, worker) (tidegate_connections{@w})": "{{instance}} {{worker}}"}, "stack"),
    Panel("Connections by state", "short",
          "Handshaking for long: slow clients or hooks. Closing for long: clients that do not answer a close frame.",
          {"sum by (state) (tidegate_connections{@w})": "{{state}}"}, "stack"),
    Panel("Skew", "short",
          "Connections of the fullest worker, as a multiple of the mean: near 1 is even. It grows after a worker was "
          "replaced, until clients have come back.",
          {"max by (instance) (sum by (instance, worker) (tidegate_connections{@}))"
           " / clamp_min(avg by (instance) (sum by (instance, worker) (tidegate_connections{@})), 1)": "{{instance}}"}),
    Panel("Accepted by worker", "cps", "Connections accepted a second.",
          {"sum by (instance, worker) (rate(tidegate_connections_accepted_total{@w}[~]))": "{{instance}} {{worker}}"},
          "stack"),
    Panel("Handshakes by result", "cps",
          "ok, or why there was no connection; rejected: the application answered by itself, pages included.",
          {"sum by (result) (rate(tidegate_handshakes_total{@}[~]))": "{{result}}"}, "stack"),
    Panel("Turned away by a limit", "cps", "Connections that got 503 or 429, by the limit that was reached.",
          {"sum by (limit) (rate(tidegate_limit_rejections_total{@}[~]))": "{{limit}}"}, "stack"),
    Panel("Handshake duration", "s", "From accepting a connection to the end of its handshake.",
          quantiles("tidegate_handshake_duration_seconds")),
    Panel("Connection duration", "s", "How long the connections lasted that ended.",
          heat("tidegate_connection_duration_seconds"), "heatmap"),
    Panel("Capacity in use", "percentunit",
          "Connections, as a share of how many there may be: --max-connections, or what limits of open files allow.",
          {"sum by (instance) (tidegate_connections{@}) / on (instance)"
           " sum by (instance) (tidegate_connections_max{@})": "{{instance}}"}, steps=(0.7, 0.85)),
)  # fmt: skip

TRAFFIC = (
    Panel("Messages", "cps", "Messages a second.",
          {"sum by (opcode) (rate(tidegate_messages_received_total{@w}[~]))": "received {{opcode}}",
           "sum by (opcode) (rate(tidegate_messages_sent_total{@w}[~]))": "sent {{opcode}}"}),
    Panel("Payload", "Bps", "Bytes of messages a second, as the application has them: before compression.",
          {"sum(rate(tidegate_received_bytes_total{@w}[~]))": "received",
           "sum(rate(tidegate_sent_bytes_total{@w}[~]))": "sent"}),
    Panel("Messages received by worker", "cps", "An uneven picture with even connections: some clients are busier.",
          {"sum by (instance, worker) (rate(tidegate_messages_received_total{@w}[~]))": "{{instance}} {{worker}}"},
          "stack"),
    Panel("Size of messages received", "bytes", "Payload of each message.",
          heat("tidegate_message_size_bytes", '@,direction="received"'), "heatmap", 12),
    Panel("Size of messages sent", "bytes", "Payload of each message.",
          heat("tidegate_message_size_bytes", '@,direction="sent"'), "heatmap", 12),
    Panel("Handler duration", "s", "From a message's arrival to its handler asking for the next.",
          quantiles("tidegate_handler_duration_seconds"), width=12),
    Panel("Backpressure", "cps",
          "Pauses of reading, because handlers are slower than clients; of writing, because clients are slower than "
          "handlers.",
          {"sum by (direction) (rate(tidegate_backpressure_pauses_total{@w}[~]))": "{{direction}}"}, width=12),
    Panel("HTTP requests", "cps", "Of an ASGI application, by class of the status.",
          {"sum by (status) (rate(tidegate_http_requests_total{@w}[~]))": "{{status}}"}, "stack", width=12),
    Panel("HTTP request duration", "s", "From the call of the ASGI application to its return.",
          quantiles("tidegate_http_request_duration_seconds"), width=12),
)  # fmt: skip

HEALTH = (
    Panel("Ping round trips", "s", "From a ping to its pong: what the network and clients take.",
          heat("tidegate_ping_rtt_seconds"), "heatmap"),
    Panel("Closes by code", "cps",
          "1000 and 1001: clients leave, or the daemon drains. 1006: lost. 1009: over --max-size. 1011: a handler "
          "failed, or a pong did not come.",
          {"sum by (code) (rate(tidegate_closes_total{@}[~]))": "{{code}}"}, "stack"),
    Panel("Closes by who began", "cps", "local: this side; remote: the client; abort: without a close handshake.",
          {"sum by (initiator) (rate(tidegate_closes_total{@}[~]))": "{{initiator}}"}, "stack"),
    Panel("Closes in the time shown", "short", "How many connections ended with which code.",
          {"sort_desc(sum by (code) (increase(tidegate_closes_total{@}[$__range])) > 0.5)": "{{code}}"},
          "stat", 12, range=True),
    Panel("Pong timeouts", "cps", "Connections failed because no pong came within --ping-timeout.",
          {"sum(rate(tidegate_pong_timeouts_total{@}[~]))": "timeouts"}, width=6),
    Panel("Slow consumers", "cps", "Clients closed with 1013: more than --broadcast-limit waited for them.",
          {"sum by (action) (rate(tidegate_slow_consumers_total{@}[~]))": "{{action}}"}, width=6),
    Panel("Slow clients", "short", "Connections for which more than --write-limit is buffered.",
          {"sum by (instance, worker) (tidegate_send_queue_connections{@w})": "{{instance}} {{worker}}"}, "stack"),
    Panel("Send queues", "bytes", "What waits for slow clients: memory of the workers.",
          {"sum by (instance, worker) (tidegate_send_queue_bytes{@w})": "{{instance}} {{worker}}"}, "stack"),
    Panel("Longest send queue", "bytes", "What waits for the slowest client of each worker.",
          {"tidegate_send_queue_max_bytes{@w}": "{{instance}} {{worker}}"}),
)  # fmt: skip

WORKERS = (
    Panel("Stages", "none", "Workers at each stage; backoff: the slot waits before it gets another one.",
          {"sum by (stage) (tidegate_worker_stage{@w})": "{{stage}}"}, "stack"),
    Panel("Exits by reason", "short", "Workers that ended, as asked (reload, recycled) or by themselves.",
          {"sum by (reason) (increase(tidegate_worker_exits_total{@w}[~]))": "{{reason}}"}, "stack"),
    Panel("Loop lag p99 by worker", "s", "One worker above the others: its handlers block. All: too few processors.",
          {"histogram_quantile(0.99,"
           " sum by (instance, worker, le) (rate(tidegate_event_loop_lag_seconds_bucket{@w}[~])))":
           "{{instance}} {{worker}}"}),
    Panel("Resident memory", "bytes", "With what processes share, so the sum counts that more than once.",
          {"tidegate_process_resident_memory_bytes{@w}": "{{instance}} {{worker}}"}),
    Panel("Processor time", "percentunit", "Of one processor; a worker cannot take more than one with Python's code.",
          {"rate(tidegate_process_cpu_seconds_total{@w}[~])": "{{instance}} {{worker}}"}),
    Panel("Heartbeat age", "s",
          "Time since the event loop last ran. After half of --worker-timeout the log has the stacks; after the whole "
          "of it the worker is replaced.",
          {"tidegate_heartbeat_age_seconds{@w}": "{{instance}} {{worker}}"}),
    Panel("Garbage collection", "percentunit", "Share of the time in which it stops a worker.",
          {"sum by (instance, worker) (rate(tidegate_gc_pause_seconds_sum{@w}[~]))": "{{instance}} {{worker}}"}),
    Panel("Collections", "cps", "By the oldest generation that they took; 2 is everything.",
          {"sum by (generation) (rate(tidegate_gc_collections_total{@w}[~]))": "generation {{generation}}"}, "stack"),
    Panel("Pauses for collection", "s", "All of a worker's clients wait that long: gc.freeze() after loading helps.",
          quantiles("tidegate_gc_pause_seconds", "@w")),
    Panel("Age", "s", "Of the newest worker of each slot.",
          {"time() - tidegate_worker_start_time_seconds{@w}": "{{instance}} {{worker}}"}),
    Panel("Spawns", "short", "Workers forked.",
          {"sum by (instance, worker) (increase(tidegate_worker_spawns_total{@w}[~]))": "{{instance}} {{worker}}"},
          "stack"),
    Panel("Lost log lines", "cps", "Lines that came faster than they could be written.",
          {"sum by (instance) (rate(tidegate_log_messages_dropped_total{@w}[~]))": "{{instance}} workers",
           "rate(tidegate_supervisor_log_messages_dropped_total{@}[~])": "{{instance}} supervisor"}),
)  # fmt: skip

KERNEL = (
    Panel("Accept queues", "short",
          "Connections that wait to be accepted, and how many may: the system drops more.",
          {"tidegate_accept_queue_length{@}": "{{instance}} {{worker}}",
           "tidegate_accept_queue_limit{@}": "{{instance}} {{worker}} limit"}),
    Panel("Overflows and drops", "cps",
          "Connections that found a queue full, of all programs in the network namespace: raise --backlog and "
          "net.core.somaxconn, or add workers.",
          {"rate(tidegate_listen_overflows_total{@}[~])": "{{instance}} overflows",
           "rate(tidegate_listen_drops_total{@}[~])": "{{instance}} drops"}),
    Panel("File descriptors", "percentunit", "Open ones, as a share of how many there may be.",
          {"tidegate_process_open_fds{@w} / tidegate_process_max_fds{@w}": "{{instance}} {{worker}}"},
          steps=(0.7, 0.85)),
)  # fmt: skip

LIFECYCLE = (
    Panel("Reloads and upgrades", "short", "Those that ended. A failure left the old workers serving.",
          {"sum by (result) (increase(tidegate_reloads_total{@}[~]))": "reloads: {{result}}",
           "sum by (result) (increase(tidegate_upgrades_total{@}[~]))": "upgrades: {{result}}"}),
    Panel("Reload duration", "s", "Until the new workers served alone, without the drain of the old ones.",
          heat("tidegate_reload_duration_seconds"), "heatmap"),
    Panel("Drain duration", "s", "From the order to drain to the end of the worker.",
          heat("tidegate_drain_duration_seconds"), "heatmap"),
    Panel("Connections while draining", "short",
          "All connections of a daemon, while workers of it drain: after a reload they come back, before an end they "
          "go.",
          {'sum by (instance) (tidegate_connections{@}) and on (instance)'
           ' sum by (instance) (tidegate_worker_stage{@,stage="draining"}) > 0': "{{instance}}"}),
    Panel("Generation", "none", "Of the newest worker of each slot: one more with each reload.",
          {"tidegate_worker_generation{@w}": "{{instance}} {{worker}}"}),
    Panel("Last reload", "none", "1: the last reload or upgrade succeeded, or there was none yet; 0: it failed.",
          {"tidegate_last_reload_success{@}": "{{instance}}"}),
    Panel("Readiness", "none", "Whether /readyz answers 200, and whether the daemon was told to stop.",
          {"tidegate_ready{@}": "{{instance}} ready", "tidegate_draining{@}": "{{instance}} draining"}, width=12),
    Panel("Supervisor", "s", "Time since its loop last ran: minutes mean that the workers are not supervised.",
          {"tidegate_supervisor_tick_age_seconds{@}": "{{instance}}"}, width=12),
)  # fmt: skip

CHANNELS = (
    Panel("Bus", "none", "1 while messages of channels come to a worker.",
          {"tidegate_bus_up{@w}": "{{instance}} {{worker}} {{engine}}"}, width=6),
    Panel("Published and delivered", "cps", "Messages a second: to the bus, from it to workers, and to their members.",
          {"sum(rate(tidegate_bus_published_total{@w}[~]))": "published",
           "sum(rate(tidegate_bus_received_total{@w}[~]))": "received",
           "sum(rate(tidegate_bus_delivered_total{@w}[~]))": "delivered"}, width=6),
    Panel("Lag", "s", "From the publishing of a message until a worker gives it to members.",
          quantiles("tidegate_bus_lag_seconds"), width=6, steps=(1, 1)),
    Panel("Members and channels", "short", "Members once for each channel, channels once for each worker.",
          {"sum(tidegate_bus_members{@w})": "members", "sum(tidegate_bus_topics{@w})": "channels",
           "sum(tidegate_bus_subscriptions_pending{@w})": "being subscribed"}, width=6),
    Panel("Publishing with history", "s", "Until a message is stored.",
          quantiles("tidegate_bus_publish_seconds"), width=6),
    Panel("Giving to members", "s", "What a worker gives to members at once; it does nothing else in this time.",
          quantiles("tidegate_bus_fanout_seconds"), width=6),
    Panel("Probes", "s", "Until a worker hears its own message from Redis or NATS, where nothing else comes for 2 s.",
          quantiles("tidegate_bus_probe_seconds"), width=6),
    Panel("Gaps", "cps", "Missed messages: repaired, which members do not notice, or told to them.",
          {"sum by (outcome) (rate(tidegate_bus_gaps_total{@}[~]))": "{{outcome}}",
           "sum(rate(tidegate_bus_duplicates_total{@}[~]))": "duplicates dropped"}, width=6),
    Panel("Resumes", "cps", "Joins; failed: history has not all that was missed.",
          {"sum by (result) (rate(tidegate_bus_resumes_total{@}[~]))": "{{result}}",
           "sum(rate(tidegate_bus_resumed_messages_total{@}[~]))": "messages"}, width=6),
    Panel("What goes wrong", "cps", "Publishes that failed, members that were closed, messages that found no room.",
          {"sum by (reason) (rate(tidegate_bus_publish_failures_total{@}[~]))": "publish: {{reason}}",
           "sum by (reason) (rate(tidegate_bus_member_closes_total{@}[~]))": "closed: {{reason}}",
           "sum by (queue) (rate(tidegate_bus_dropped_total{@}[~]))": "dropped: {{queue}}"}, width=6),
    Panel("Queues", "bytes", "What waits for the bus, and at the hub for workers.",
          {"sum by (queue) (tidegate_bus_queue_bytes{@})": "{{queue}}"}, width=6),
    Panel("Changes and reads", "cps", "Changes of the bus as workers see it, and reads of history that they asked for.",
          {"sum by (to) (rate(tidegate_bus_state_changes_total{@}[~]))": "{{to}}",
           "sum by (outcome) (rate(tidegate_bus_engine_reads_total{@}[~]))": "read: {{outcome}}"}, width=6),
    Panel("Hub", "none", "Its links and channels, and how many hubs ended by themselves.",
          {"sum(tidegate_bus_hub_links{@})": "links", "sum(tidegate_bus_hub_topics{@})": "channels",
           "sum(tidegate_bus_hub_restarts_total{@})": "restarts"}, width=6),
    Panel("Hub's messages", "cps", "Taken, stored in the journal, sent to workers, and lost for want of --bus-memory.",
          {"sum(rate(tidegate_bus_hub_published_total{@}[~]))": "taken",
           "sum(rate(tidegate_bus_journal_stored_total{@}[~]))": "stored",
           "sum(rate(tidegate_bus_hub_delivered_total{@}[~]))": "sent",
           "sum(rate(tidegate_bus_journal_evicted_total{@}[~]))": "lost"}, width=6),
    Panel("Journal", "bytes", "Bytes of the messages that are kept.",
          {"sum by (instance) (tidegate_bus_journal_bytes{@})": "{{instance}}"}, "stack", 6),
    Panel("Messages in the journal", "short", "Messages that are kept.",
          {"sum by (instance) (tidegate_bus_journal_messages{@})": "{{instance}}"}, "stack", 6),
)  # fmt: skip

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("At a glance", GLANCE),
    ("Connections", CONNECTIONS),
    ("Traffic", TRAFFIC),
    ("Health of connections", HEALTH),
    ("Channels", CHANNELS),
    ("Workers", WORKERS),
    ("Kernel", KERNEL),
    ("Reloads, upgrades and drains", LIFECYCLE),
)


@dataclass(frozen=True)
class Marks:
    """Vertical lines on every panel. `at_value`: the value is the time, in ms; else they are where there is one."""

    name: str
    query: str
    title: str
    color: str
    at_value: bool = False


ANNOTATIONS = (
    Marks("Starts", "1000 * tidegate_start_time_seconds{@}", "{{instance}} started", "blue", at_value=True),
    # Without a reload that metric has the time of the start.
    Marks("Reloads",
          "1000 * (tidegate_last_reload_timestamp_seconds{@} != on (job, instance) tidegate_start_time_seconds{@})",
          "{{instance}} reloaded", "green", at_value=True),
    Marks("Deploys",
          "count by (job, instance, version, python) (tidegate_build_info{@})"
          " unless on (job, instance, version, python) tidegate_build_info{@} offset $__rate_interval",
          "{{instance}}: tidegate {{version}}, Python {{python}}", "purple"),
    Marks("Settings",
          "count by (job, instance, hash) (tidegate_config_hash_info{@})"
          " unless on (job, instance, hash) tidegate_config_hash_info{@} offset $__rate_interval",
          "{{instance}}: other settings ({{hash}})", "orange"),
    Marks("Crashes",
          "sum by (job, instance, worker, reason)"
          f' (increase(tidegate_worker_exits_total{{@w,reason=~"{BAD_EXITS}"}}[~])) > 0',
          "{{instance}}: worker {{worker}} ended: {{reason}}", "red"),
)  # fmt: skip


def expanded(query: str) -> str:
    """A query as Grafana gets it."""
    return query.replace("@w", WORKER).replace("@", DAEMON).replace("[~]", "[$__rate_interval]")


def targets(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + i),
            "datasource": DATASOURCE,
            "expr": expanded(query),
            "legendFormat": legend,
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            "instant": panel.range,
            "range": not panel.range,
        }
        for i, (query, legend) in enumerate(panel.queries.items())
    ]


def field_config(panel: Panel) -> dict[str, Any]:
    """How values are shown, and from which on in another colour."""
    colors = ("orange", "red") if len(set(panel.steps)) == 2 else ("red",)
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for color, value in zip(colors, sorted(set(panel.steps)), strict=False)]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"} if panel.steps else {"mode": "fixed", "fixedColor": "text"}
    elif panel.kind != "heatmap":
        defaults["min"] = 0
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.kind == "stack" else 5,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.kind == "stack" else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    return {"defaults": defaults, "overrides": []}


def options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        several = len(panel.queries) > 1 or "{{" in "".join(panel.queries.values())
        return {
            "colorMode": "value",
            "graphMode": "none" if panel.range or several else "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value_and_name" if several else "value",
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Blues",
                "steps": 32,
                "exponent": 0.5,
                "fill": "blue",
                "reverse": False,
            },
            "exemplars": {"color": "purple"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": False},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def panel_json(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": {"lines": "timeseries", "stack": "timeseries"}.get(panel.kind, panel.kind),
        "title": panel.title,
        "description": panel.tells,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height(panel)},
        "targets": targets(panel),
        "fieldConfig": field_config(panel),
        "options": options(panel),
    }


def height(panel: Panel) -> int:
    return 4 if panel.kind == "stat" and panel.width <= 4 else 8


def panels() -> Iterator[dict[str, Any]]:
    """Every panel at its place, from left to right and from top to bottom."""
    numbers = count(1)
    y = 0
    for title, row in ROWS:
        yield {
            "id": next(numbers),
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = 0
        for panel in row:
            if x + panel.width > COLUMNS:
                x = 0
                y += height(panel)
            yield panel_json(panel, next(numbers), x, y)
            x += panel.width
        y += height(row[-1])


def variable(name: str, query: str, *, label: str, all_value: str = ".+") -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # with the time shown: what was there then
        "sort": 3,
        "multi": True,
        "includeAll": True,
        "allValue": all_value,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
        variable("job", "label_values(tidegate_build_info, job)", label="Job"),
        variable("instance", 'label_values(tidegate_build_info{job=~"$job"}, instance)', label="Instance"),
        variable("worker", f"label_values(tidegate_worker_spawns_total{{{DAEMON}}}, worker)", label="Worker"),
    ]


def annotations() -> list[dict[str, Any]]:
    return [
        {
            "name": marks.name,
            "datasource": DATASOURCE,
            "enable": True,
            "iconColor": marks.color,
            "expr": expanded(marks.query),
            "step": "15s",
            "titleFormat": marks.title,
            "useValueForTime": marks.at_value,  # what is no empty text is true there, "off" as well
        }
        for marks in ANNOTATIONS
    ]


def dashboard() -> dict[str, Any]:
    """The whole of it."""
    return {
        "uid": "tidegate",
        "title": "tidegate",
        "description": "Written by grafana/dashboard.py. The order of the rows is that of questions: is it up, who is "
        "connected, what do they do, are they well, which worker, is it the system, was it a deploy.",
        "tags": ["tidegate", "websocket"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables()},
        "annotations": {"list": annotations()},
        "panels": list(panels()),
        "links": [],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(f"{FILE}: {sum(len(row) for _, row in ROWS)} panels")
