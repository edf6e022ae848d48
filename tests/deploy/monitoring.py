"""What tests of the dashboard need: a Prometheus that runs as deploy/prometheus says, only faster; clients that count.

    Prometheus    scrapes one daemon, answers queries as it does those of Grafana
    Load          clients that talk and end in every way, and what they did: to be compared

What must not live here: test cases.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.harness import ROOT, Daemon, free_port, require, wait_until
from tests.support.patience import PATIENCE

SCRAPE_SECONDS = 1

# Of the scrape configuration, for who has a token.
TOKEN_LINES = """\
    # authorization:
    #   credentials_file: /etc/prometheus/tidegate-token
"""

_FOLDER = ROOT / "deploy" / "prometheus"

Series = list[tuple[dict[str, str], list[tuple[float, float]]]]
"""Labels, and (time, value) of each point."""


class Prometheus:
    """A Prometheus with the scrape configuration and the alerts of deploy/, as a context manager.

    It scrapes one daemon under two names, so that queries which mix up instances do not go unnoticed.

    Parameters:
        admin: HOST:PORT of the daemon's admin address.
        token: its --admin-token, if it has one.

    Attributes: targets (its two names).
    """

    def __init__(self, admin: str, token: str | None = None) -> None:
        program = shutil.which("prometheus")
        require(program, "prometheus (Debian package)")
        self._program = str(program)
        self._token = token
        self.targets = (admin, f"localhost:{admin.rpartition(':')[2]}")
        self._address = f"127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-test-prometheus-")
        folder = Path(self._folder.name)
        shutil.copy(_FOLDER / "alerts.yml", folder)
        text = (_FOLDER / "prometheus.yml").read_text(encoding="utf-8")
        targets = '", "'.join(self.targets)
        for documented, here in (("127.0.0.1:9465", targets), ("interval: 15s", f"interval: {SCRAPE_SECONDS}s")):
            assert documented in text
            text = text.replace(documented, here)
        if self._token is not None:
            (folder / "tidegate-token").write_text(self._token, encoding="utf-8")
            assert TOKEN_LINES in text
            text = text.replace(TOKEN_LINES, TOKEN_LINES.replace("# ", "").replace("/etc/prometheus", str(folder)))
        (folder / "prometheus.yml").write_text(text, encoding="utf-8")
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self._address}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            # Everything there once: what counts up from now on was seen at its beginning.
            wait_until(lambda: len(self.query("tidegate_build_info")) == 2, "the first scrapes", PATIENCE)
        except BaseException as error:
            error.add_note(self.log)
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.log)
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    @property
    def log(self) -> str:
        """What it has complained of."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, parameters: Mapping[str, object] | None = None) -> Any:
        """The data of an answer of its API; AssertionError with its reason when it has none, [] while it starts."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters or {})}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=PATIENCE) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    return {"result": []}
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        except OSError:
            assert self._process.poll() is None, "it has ended"
            return {"result": []}

    def query(self, query: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at a time, or now."""
        data = self.ask("query", {"query": query, **({} if at is None else {"time": at})})
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def range(self, query: str, start: float, end: float, step: float = SCRAPE_SECONDS) -> Series:
        """Labels and points of each series."""
        data = self.ask("query_range", {"query": query, "start": start, "end": end, "step": step})
        return _series(data)

    def samples(self, selector: str, start: float, end: float) -> Series:
        """As they were scraped, with the times of the scrapes."""
        return _series(self.ask("query", {"query": f"{selector}[{end - start:.0f}s]", "time": end}))

    def catch_up(self) -> None:
        """Wait until it has scraped, and judged the alerts, after now."""
        now = time.time()
        wait_until(lambda: len(self.query(f"timestamp(tidegate_ready) > {now}")) == 2, "scrapes", PATIENCE)


def _series(data: Any) -> Series:
    return [
        (series["metric"], [(float(moment), float(value)) for moment, value in series["values"]])
        for series in data["result"]
    ]


class Load:
    """Clients of the application below, who count what they do as the daemon should.

    Attributes:
        messages: (direction, opcode) -> how many, seen from the server.
        bytes: direction -> payload bytes.
        closes: code, as the metric has it -> how many; without connections of workers that were killed.
        handshakes: result -> how many.
        timeline: (time, how many messages were sent, how many of them came back), one entry for each.
    """

    APPLICATION = """
        import asyncio
        import contextlib
        import tidegate

        async def handler(websocket):
            async for message in websocket:
                if message == "bye":
                    await websocket.close(4001)
                elif message == "fail":
                    raise RuntimeError("as the test asked")
                else:
                    await websocket.send(message)

        async def tick():
            "Have messages in a channel, of which no client hears."
            async with tidegate.subscribe("h:room"):
                while True:
                    with contextlib.suppress(tidegate.BusError):
                        await tidegate.publish("h:room", "tick")
                    await asyncio.sleep(0.1)

        @contextlib.asynccontextmanager
        async def lifespan():
            task = asyncio.create_task(tick())
            yield
            task.cancel()

        app = tidegate.App(handler, lifespan=lifespan, channels={"h:": tidegate.Channel(history=10)})
    """
    MAX_SIZE = 65536

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.messages: Counter[tuple[str, str]] = Counter()
        self.bytes: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self.timeline: list[tuple[float, int, int]] = [(0.0, 0, 0)]

    async def connect(self) -> ClientConnection:
        websocket = await connect(self._daemon.uri, compression=None, proxy=None, open_timeout=PATIENCE)
        self.handshakes["ok"] += 1
        return websocket

    async def refused(self) -> None:
        """Somebody comes who is no WebSocket client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._daemon.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 426 " in await reader.readline()
        writer.close()
        self.handshakes["upgrade_required"] += 1

    def _sent(self, message: str | bytes) -> None:
        self.messages["received", "text" if isinstance(message, str) else "binary"] += 1
        self.bytes["received"] += len(message)

    async def talk(self, websocket: ClientConnection, count: int, pause: float) -> None:
        """So many messages, text and binary in turn, each after the answer to the one before, and a pause."""
        for number in range(count):
            message = "x" * 100 if number % 2 else bytes(1000)
            self._sent(message)
            self._note(1, 0)
            await websocket.send(message)
            assert await websocket.recv() == message
            self.messages["sent", "text" if isinstance(message, str) else "binary"] += 1
            self.bytes["sent"] += len(message)
            self._note(0, 1)
            await asyncio.sleep(pause)

    def _note(self, sent: int, answered: int) -> None:
        _, before, answered_before = self.timeline[-1]
        self.timeline.append((time.time(), before + sent, answered_before + answered))

    def done(self, at: float) -> tuple[int, int]:
        """How many messages were sent, and how many were answered, by a time."""
        return next((sent, answered) for moment, sent, answered in reversed(self.timeline) if moment <= at)

    async def end(self, websocket: ClientConnection, how: int) -> None:
        """End a connection so that the server counts this code."""
        if how == 1006:
            websocket.transport.abort()
        elif how in (1009, 1011, 4001):
            message = {1009: "x" * (self.MAX_SIZE + 1), 1011: "fail", 4001: "bye"}[how]
            if how != 1009:
                self._sent(message)
            await websocket.send(message)
        elif how != 1001:
            await websocket.close(how)
        try:
            await websocket.recv()
        except ConnectionClosed:
            pass
        assert how == 1006 or websocket.close_code == how
        self.closes["3xxx" if 3000 <= how < 4000 else "4xxx" if how >= 4000 else str(how)] += 1
