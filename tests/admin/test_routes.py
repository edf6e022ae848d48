"""The admin process answers over real sockets: paths, methods, headers."""

import json
import os
import socket

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.admin.process import Admin
from tests.support.patience import PATIENCE
from tidegate._core.scoreboard import Scoreboard

PATHS = ("/", "/metrics", "/status", "/livez", "/readyz")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("query", ["", "?", "?x=1&y=%20?"])
def test_paths(admin: Admin, path: str, query: str) -> None:
    """Each path is answered with 200 and headers that keep the answer out of caches."""
    admin.board.ready = True
    status, headers, body = admin.get(path + query)
    assert status == 200
    assert body
    assert int(headers["Content-Length"]) == len(body)
    assert headers["Cache-Control"] == "no-store"
    assert headers["Connection"] == "close"


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get_and_no_body(admin: Admin, path: str) -> None:
    _, get, body = admin.get(path)
    _, head, nothing = admin.get(path, "HEAD")
    assert nothing == b""
    assert head["Content-Type"] == get["Content-Type"]
    assert abs(int(head["Content-Length"]) - len(body)) < 200  # times in it have more or fewer digits


@pytest.mark.parametrize("path", ["/nothing", "//metrics", "/metrics/", "/METRICS", "/../status", "*"])
def test_other_paths(admin: Admin, path: str) -> None:
    status, headers, body = admin.get(path)
    assert status == 404
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body == b"there is nothing here; ask for /, /metrics, /status, /livez, /readyz, /live\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods(admin: Admin, method: str) -> None:
    status, headers, _ = admin.get("/metrics", method)
    assert status == 405
    assert "GET" in headers["Allow"]


def test_metrics_are_those_of_the_scoreboard(admin: Admin) -> None:
    for _ in range(3):
        admin.board.row(0).accepted()
    status, headers, body = admin.get("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {
        (sample.name, sample.labels.get("worker")): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }
    # 3, and not the scrapes': the admin process counts its own connections elsewhere
    assert found["tidegate_connections_accepted_total", "0"] == 3
    assert found["tidegate_connections_accepted_total", "1"] == 0


def test_metrics_in_the_format_asked_for(admin: Admin) -> None:
    _, headers, body = admin.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert list(parse_openmetrics(body.decode()))


def test_several_accept_headers_are_one_list(admin: Admin) -> None:
    with socket.create_connection(("127.0.0.1", admin.ports[0]), timeout=PATIENCE) as client:
        client.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
            b"Accept: application/json\r\nAccept: application/openmetrics-text\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/openmetrics-text" in head.lower()
    assert body.endswith(b"# EOF\n")


def test_status(admin: Admin) -> None:
    """/status is a JSON object with the state of the daemon."""
    status, headers, body = admin.get("/status")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    found = json.loads(body)
    assert (found["state"], found["pid"], found["workers_ready"]) == ("starting", os.getpid(), 1)


def test_page(admin: Admin) -> None:
    """The page is HTML, and its links are relative."""
    _, headers, body = admin.get("/")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert all(f'href="{path[1:]}"'.encode() in body for path in PATHS[1:]), "below where the page is"


def test_readyz_follows_the_supervisor(admin: Admin) -> None:
    board = admin.board
    status, headers, body = admin.get("/readyz")
    assert (status, headers["Content-Type"], body) == (
        503,
        "text/plain; charset=utf-8",
        b"starting: 1 of 2 workers ready\n",
    )
    board.stage(1, "ready")
    board.ready = True
    assert admin.get("/readyz")[::2] == (200, b"ready: 2 of 2 workers ready\n")
    board.draining = True
    assert admin.get("/readyz")[::2] == (503, b"draining: 2 of 2 workers ready\n")


def test_livez_follows_the_supervisors_tick(admin: Admin) -> None:
    status, _, body = admin.get("/livez")
    assert (status, body[:6]) == (200, b"alive:")
    admin.board.tick(admin.board.ticked_at - 1000)
    status, _, body = admin.get("/livez")
    assert (status, body[:6]) == (503, b"stuck:")


@pytest.mark.parametrize("path", ["/metrics", "/status", "/livez", "/readyz"])
def test_while_nothing_can_be_read(admin: Admin, board: Scoreboard, path: str) -> None:
    os.pwrite(board.fd, b"\x01", 5 * 8)  # the sequence: a supervisor that died as it wrote
    status, _, body = admin.get(path)
    assert status == 503
    assert body == f"the supervisor (pid {os.getpid()}) was writing for 0.25 s\n".encode()
    assert admin.get("/")[0] == 200


def test_every_socket_is_served(admin: Admin) -> None:
    assert len({admin.get("/status", port=port)[0] for port in admin.ports}) == 1
    assert len(admin.ports) == 2
