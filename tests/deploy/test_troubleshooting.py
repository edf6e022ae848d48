"""What the guide to troubleshooting says is seen: symptoms are brought about with real daemons, and looked for there.

What must not live here: names of metrics and options (test_guides.py), what the parts do beyond what the guide says.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support import wire
from tests.support.harness import ROOT, Daemon, wait_until
from tests.support.patience import PATIENCE
from tests.support.rawclient import RawClient

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

PAGE = (ROOT / "deploy" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())

HANDLER = """
    async def handler(websocket):
        async for message in websocket:
            if message == "fail":
                raise RuntimeError("as asked")
            await websocket.send(str(websocket.remote_address[0]))
"""


def said(text: str) -> str:
    """A text that the guide has."""
    assert text in PROSE, f"the guide does not say {text!r}"
    return text


def handshake(daemon: Daemon, headers: dict[str, str | None] | None = None) -> int:
    """The status of a handshake; it is read even if it comes before the request, as that of a limit does."""
    with RawClient(daemon.port) as client:
        client.send(wire.request(headers=headers))
        status, _, _ = client.response()
    return status


def closed(daemon: Daemon, message: str) -> tuple[int, str]:
    """Code and reason of the close that a message is answered with."""
    with connect(daemon.uri, proxy=None) as websocket:
        websocket.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(timeout=PATIENCE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_connections_that_are_closed() -> None:
    with Daemon(HANDLER, "--access-log") as daemon:
        said("`frame exceeds limit of 1048576 bytes`")
        assert closed(daemon, "x" * (2**20 + 1)) == (1009, "frame exceeds limit of 1048576 bytes")
        daemon.wait_metric("tidegate_closes_total", 1, code="1009", initiator="local")

        assert closed(daemon, "fail") == (1011, "")
        said("`connection handler failed`")
        wait_until(lambda: "connection handler failed" in daemon.log, "the traceback")

        with RawClient(daemon.port) as client:
            client.open()
        said('`error="unexpected end of stream"`')
        daemon.wait_metric("tidegate_closes_total", 1, code="1006", initiator="abort")
        wait_until(lambda: 'error="unexpected end of stream"' in daemon.log, "the reason")


def test_a_client_that_answers_no_ping() -> None:
    with Daemon(HANDLER, "--ping-interval", "100ms", "--ping-timeout", "100ms", "--close-timeout", "100ms") as daemon:
        with RawClient(daemon.port) as client:
            client.open()
            received = b""
            while piece := client.socket.recv(4096):
                received += piece
        said("Reason `keepalive ping timeout`")
        assert received.endswith(b"keepalive ping timeout")
        daemon.wait_metric("tidegate_pong_timeouts_total", 1)


def test_handshakes_that_are_refused() -> None:
    options = ["--max-connections", "1", "--trusted-proxies", "127.0.0.1", "--max-connections-per-address", "1"]
    with Daemon(HANDLER, *options) as daemon:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(f"http://{daemon.address}/", timeout=PATIENCE)
        said("`curl -i http://127.0.0.1:8765/` from the proxy's machine should be answered with 426")
        assert caught.value.code == 426
        caught.value.close()
        daemon.wait_metric("tidegate_handshakes_total", 1, result="upgrade_required")

        with connect(daemon.uri, proxy=None, additional_headers={"X-Forwarded-For": "192.0.2.1"}) as websocket:
            websocket.send("who am I?")
            assert websocket.recv(timeout=PATIENCE) == "192.0.2.1"
            assert handshake(daemon) == 503
        said('`tidegate_limit_rejections_total{limit="daemon"}` grows: `--max-connections` is reached')
        daemon.wait_metric("tidegate_limit_rejections_total", 1, limit="daemon")


def asked_in_1_0(address: str, path: str) -> bytes:
    """The status line."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            return answer.readline()


def test_http_1_0() -> None:
    with Daemon(HANDLER) as daemon:
        said("`version_not_supported`, 505: HTTP/1.0")
        assert asked_in_1_0(daemon.address, "/").startswith(b"HTTP/1.1 505 ")
        daemon.wait_metric("tidegate_handshakes_total", 1, result="version_not_supported")
        said("the admin address answers it")
        assert asked_in_1_0(daemon.admin, "/readyz").startswith(b"HTTP/1.1 200 ")


def test_a_second_daemon() -> None:
    said("give it another one, such as `--admin 127.0.0.1:9466`, or none")
    with (
        Daemon(HANDLER) as daemon,
        Daemon(HANDLER, "--admin", daemon.admin, admin=False, wait=False) as second,
    ):
        assert second.wait() == 4
        said("`the admin address ... could not be bound`")
        assert f"the admin address {daemon.admin} could not be bound" in second.log


def test_a_proxy_that_is_not_trusted_is_one_client() -> None:
    said("Behind a proxy without `--trusted-proxies`, all clients have the proxy's address, and share one limit")
    with Daemon(HANDLER, "--max-connections-per-address", "1") as daemon:
        with connect(daemon.uri, proxy=None, additional_headers={"X-Forwarded-For": "192.0.2.1"}):
            assert handshake(daemon, {"X-Forwarded-For": "192.0.2.2"}) == 429
        daemon.wait_metric("tidegate_limit_rejections_total", 1, limit="address")


def test_a_rest() -> None:
    with Daemon(HANDLER) as daemon:
        daemon.signal(signal.SIGWINCH)
        wait_until(lambda: daemon.get("/readyz")[0] == 503, "the rest")
        said("- `draining`: the daemon stops, or is drained; after a drain, `tidegate reload` makes it serve again")
        assert daemon.get("/readyz")[1].startswith("draining: ")
        # The word has yet to reach the worker, which until then takes connections.
        wait_until(lambda: handshake(daemon) == 503, "a handshake that is refused")
        assert daemon.metrics().total("tidegate_handshakes_total", result="unavailable") >= 1
        assert daemon.metrics().total("tidegate_draining") == 1
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.get("/readyz")[0] == 200, "the end of the rest")


def test_a_start_that_fails() -> None:
    said("`another tidegate (pid ...) has it`")
    with Daemon(HANDLER) as daemon:
        other = [*daemon.command, "--admin", "none"]
        done = subprocess.run(
            other, cwd=daemon.directory, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 4
        assert f"another tidegate (pid {daemon.pid}) has it" in done.stderr


def test_a_reload_that_fails() -> None:
    said("`tidegate_last_reload_success` is 0; `tidegate reload` and the log have the new worker's own error")
    with Daemon(HANDLER) as daemon:
        (daemon.directory / "application.py").write_text("import nothing_of_this_name", encoding="utf-8")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "reload: failed: " in daemon.log, "the failure")
        assert "No module named 'nothing_of_this_name'" in daemon.log
        daemon.wait_metric("tidegate_last_reload_success", 0)
        assert closed(daemon, "fail") == (1011, "")  # as before


@pytest.mark.parametrize(
    "line",
    [
        "too slow for broadcasts: ... bytes wait to be read",
        "... cannot change while the daemon runs",
        "not collected",
    ],
)
def test_lines_that_take_long_to_bring_about(line: str) -> None:
    """They are at least among the texts of the program."""
    said(f"`{line}`")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "tidegate").rglob("*.py"))
    assert [part for part in line.split("...") if part.strip() not in source] == []


def test_a_link_to_the_current_release(tmp_path: Path) -> None:
    said("a reload and an upgrade follow the link if its name is known, from `--working-dir`, or from `PWD`")
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        text = f"async def handler(websocket):\n    await websocket.send('{release}')\n"
        (tmp_path / release / "application.py").write_text(text, encoding="utf-8")
    current = tmp_path / "current"
    current.symlink_to("1")
    with Daemon(None, "--working-dir", str(current), "--settle", "0") as daemon:
        assert _release(daemon) == "1"
        current.unlink()
        current.symlink_to("2")
        daemon.signal(signal.SIGHUP)
        daemon.wait_metric("tidegate_reloads_total", 1, result="success")
        assert _release(daemon) == "2"


def _release(daemon: Daemon) -> str:
    with connect(daemon.uri, proxy=None) as websocket:
        return str(websocket.recv(timeout=PATIENCE))
