"""A real `tidegate serve` for tests: started on free ports with a given application, watched, and never left behind.

    with Daemon(ECHO, workers=2) as daemon:
        async with connect(daemon.uri) as websocket: ...
        assert daemon.stop() == 0

Everything is observed from outside, as an operator would: processes, signals, the admin address, the log.
What must not live here: test cases, and anything that reaches into tidegate's own objects.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

import psutil
import pytest

from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

ECHO = """
    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)
"""

APPLICATIONS = ROOT / "tests" / "process" / "applications"
"""Applications that are more than a few lines: files, of which a Daemon has a copy."""

_T = TypeVar("_T")

# Below Linux's range of ephemeral ports (32768 and up), so that no outgoing connection of a test takes one meanwhile.
_PORTS = range(18000, 32000)
_SHARES = 8  # of the ports, for the processes of a parallel run


def require(available: object, what: str) -> None:
    """Skip the test when something it needs is not installed; with TIDEGATE_REQUIRE_ALL=1 (as in CI) fail instead."""
    if available:
        return
    if os.environ.get("TIDEGATE_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and TIDEGATE_REQUIRE_ALL=1 allows no skip")
    pytest.skip(f"{what} is missing")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of this host that nobody listens on and that the system does not hand out by itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    for port in random.sample(_PORTS[share::_SHARES], 200):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port on {host} in {_PORTS}")


def wait_until(condition: Callable[[], _T], what: str, timeout: float = PATIENCE) -> _T:
    """The first true value of `condition`, asked every 10 ms; AssertionError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain: {what} (last: {value!r})")
        time.sleep(0.01)


class Metrics:
    """One scrape: every sample of the text format, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """All of them."""
        return self._parsed(self.text)

    def _parsed(self, text: str) -> list[tuple[str, dict[str, str], float]]:
        from prometheus_client.parser import text_string_to_metric_families

        return [
            (sample.name, dict(sample.labels), float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def select(self, name: str, **labels: object) -> Iterator[tuple[dict[str, str], float]]:
        """The samples called `name` that carry all of `labels`."""
        wanted = {key: str(value) for key, value in labels.items()}
        lines = [line for line in self.text.split("\n") if line.startswith(name)]
        for sample, present, value in self._parsed("\n".join([*lines, ""])):
            if sample == name and wanted.items() <= present.items():
                yield present, value

    def total(self, name: str, **labels: object) -> float:
        """The sum of the samples called `name` that carry all of `labels`: 0.0 when there is none."""
        return sum(value for _, value in self.select(name, **labels))


class Daemon:
    """A running `python -m tidegate serve` (or another `command` with its options), as a context manager.

    Parameters:
        source: the application module's text (dedented), or its file; None where `options` name their own.
        options: more arguments of the command, after those below.
        command: the subcommand.
        target: MODULE:ATTRIBUTE; the text is written to MODULE.py in a folder that is the command's current one.
            None for a command that takes none.
        workers: the value of --workers; None leaves it to the command.
        drain: the value of --drain, in seconds: 0, because few tests want to wait for it; None leaves the default.
        host: the address of --bind and --admin; `bind=None` leaves --bind to `options`, `admin=False` gives "none".
        env: variables added to this process's.
        python: options of the interpreter (("-X", "dev"), say).
        stderr: a descriptor for standard error; by default it goes where standard output goes, into `log`.
        wait: wait for /readyz on entering. Without it, `wait_ready()` may be called later.

    Attributes: port, admin (host:port, ready for a URL), directory, process, pid, log.
    """

    def __init__(
        self,
        source: str | Path | None = ECHO,
        *options: str,
        command: str = "serve",
        target: str | None = "application:handler",
        workers: int | str | None = 1,
        drain: float | None = 0,
        host: str = "127.0.0.1",
        bind: bool = True,
        admin: bool = True,
        env: Mapping[str, str] | None = None,
        python: Sequence[str] = (),
        stderr: int = subprocess.STDOUT,
        wait: bool = True,
    ) -> None:
        self.source, self.target, self.host, self._wait = source, target, host, wait
        self._stderr = stderr
        self.port = free_port(host)
        self._admin_port = free_port(host)
        while self._admin_port == self.port:
            self._admin_port = free_port(host)
        netloc = f"[{host}]" if ":" in host else host
        self.address = f"{netloc}:{self.port}"
        self.admin = f"{netloc}:{self._admin_port}"
        self.uri = f"ws://{self.address}/"
        self.command = [sys.executable, *python, "-m", "tidegate", command]
        self.command += [target] if target is not None else []
        self.command += ["--bind", self.address] if bind else []
        self.command += ["--admin", self.admin if admin else "none"]
        self.command += ["--workers", str(workers)] if workers is not None else []
        self.command += ["--drain", f"{drain:g}"] if drain is not None else []
        self.command += options
        self._environment = {**os.environ, **(env or {})}
        if "PYTHONPATH" in self._environment:  # relative entries would be lost with the change of folder
            entries = self._environment["PYTHONPATH"].split(os.pathsep)
            self._environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    # Start and end.

    def __enter__(self) -> Daemon:
        self.start()
        try:
            if self._wait:
                self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"log of {' '.join(self.command)}:\n{self.log[-8000:]}")
        self.close()

    def start(self) -> None:
        """Write the application and start the command, in a session of its own: that is how strays are found."""
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-test-")
        self.directory = Path(self._folder.name)
        if self.source is not None and self.target is not None:
            module = self.target.partition(":")[0]
            text = self.source.read_text() if isinstance(self.source, Path) else textwrap.dedent(self.source)
            (self.directory / f"{module}.py").write_text(text, encoding="utf-8")
        self._log = self.directory / "daemon.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=self._stderr,
                start_new_session=True,
            )

    def wait_ready(self, timeout: float = PATIENCE) -> None:
        """Return once /readyz answers 200; AssertionError with the log when the command ends or takes too long."""
        deadline = time.monotonic() + timeout
        while self.get("/readyz")[0] != 200:
            if self.poll() is not None:
                self._fail(f"it ended with status {self.poll()} before it was ready")
            if time.monotonic() > deadline:
                self._fail(f"it was not ready within {timeout:g} s (readyz: {self.get('/readyz')})")
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Send a signal (SIGTERM), wait for the end, check that no process stays behind, return the exit status."""
        self.signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the command to end by itself; the same checks and result as `stop()`."""
        assert self.process is not None
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._fail(f"it did not end within {timeout:g} s; still there: {self.titles()}")
        strays = self.titles()
        if strays:
            self._fail(f"it ended with status {status} but left {strays}")
        return status

    def close(self) -> None:
        """Kill whatever is still there and remove the folder. Never raises for a process that is gone already."""
        if self.process is not None:
            while alive := self.processes():
                for process in alive:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                self.process.poll()
                psutil.wait_procs(alive, timeout=1)
            self.process.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _fail(self, what: str) -> NoReturn:
        raise AssertionError(f"{' '.join(self.command)}: {what}\n--- log ---\n{self.log[-8000:]}")

    # Observe.

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self.process is not None
        return self.process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        assert self.process is not None
        return self.process.poll()

    @property
    def log(self) -> str:
        """What the daemon has written to standard output and error so far."""
        if self._folder is None or not self._log.exists():
            return ""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Every live process of the daemon's session, orphans included, zombies not."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                if os.getsid(pid) == self.pid:
                    process = psutil.Process(pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def titles(self) -> dict[int, str]:
        """Process id -> title (`tidegate: worker 0`) of every live process of the daemon."""
        titles = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                titles[process.pid] = " ".join(process.cmdline()).strip()
        return titles

    def workers(self) -> list[int]:
        """The process ids of the workers, in the order of their slots."""
        prefix = "tidegate: worker "
        found = {pid: title for pid, title in self.titles().items() if title.startswith(prefix)}
        return sorted(found, key=lambda pid: (int(found[pid].removeprefix(prefix).split()[0]), pid))

    def signal(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the supervisor, or to the process `pid` of this daemon."""
        target = self.pid if pid is None else pid
        assert os.getsid(target) == self.pid, f"process {target} is not of this daemon"
        os.kill(target, number)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """GET from the admin address: (status, body), or (0, reason) while nobody answers."""
        # urllib's openers load the certificates of the system, each anew: much to ask for what is asked every 10 ms.
        with contextlib.closing(http.client.HTTPConnection(self.admin, timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", path, headers=dict(headers or {}))
                response = connection.getresponse()
                return response.status, response.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                return 0, str(error)

    def metrics(self) -> Metrics:
        """One scrape of /metrics."""
        status, body = self.get("/metrics")
        assert status == 200, f"/metrics answered {status}: {body}"
        return Metrics(body)

    def wait_metric(self, name: str, expected: float, timeout: float = PATIENCE, **labels: object) -> None:
        """Wait until the sum of a metric's samples is `expected`."""
        wait_until(
            lambda: self.metrics().total(name, **labels) == expected, f"{name}{labels or ''} == {expected:g}", timeout
        )
