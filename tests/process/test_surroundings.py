"""What an application that is imported does to its process: to the supervisor nothing, to the workers what it means.

What must not live here: forks (test_forks.py), logging (tests/logs), signals and exits (test_exits.py).
"""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK

from tests.process import cases_surroundings as cases
from tests.support import programs
from tests.support.harness import APPLICATIONS, Daemon, wait_until

FOUND = {
    "timeout": 0.2,
    "directory": "elsewhere",
    "umask": 0o077,
    "locale": "C",
    "recursion": 400,
    "added": "by the application",
    "removed": None,
    "handled": True,
    "pipe": True,
}


@pytest.mark.parametrize("options", [(), ("--preload",)])
async def test_workers_are_as_the_application_has_made_them_and_the_daemon_goes_on(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    daemon = Daemon(
        APPLICATIONS / "careless.py",
        *options,
        *("--certfile", "cert.pem", "--keyfile", "key.pem", "--pidfile", "pid", "--control", "control.sock"),
        *("--settle", "0.1", "--log-file", "log"),
        workers=2,
        env={"REMOVED": "x"},
        wait=False,
    )
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    uri = daemon.uri.replace("ws:", "wss:")
    begin = daemon.start

    def start() -> None:  # with its certificate there
        daemon.command = ["sh", "-c", f'cp {tmp_path}/*.pem . && exec "$@"', "sh", *daemon.command]
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        begin()

    daemon.start = start  # type: ignore[method-assign]
    with daemon:
        daemon.wait_ready()
        supervisor = psutil.Process(daemon.pid)
        async with connect(uri, ssl=trust) as websocket:
            await websocket.send("how are you")
            assert json.loads(await websocket.recv()) == FOUND
            before = daemon.workers()
            daemon.signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosedOK):
                await websocket.recv()
        wait_until(lambda: not set(before) & set(daemon.workers()), "the old workers end")
        log = daemon.directory / "log"
        daemon.signal(signal.SIGUSR2)
        wait_until(lambda: "has taken over from" in log.read_text(), "the upgrade")
        wait_until(lambda: "generation 3 serves" in log.read_text(), "the upgrade's reload")
        async with connect(uri, ssl=trust) as websocket:
            await websocket.send("how are you")
            assert json.loads(await websocket.recv()) == FOUND
        assert supervisor.cwd() == str(daemon.directory)
        assert daemon.get("/readyz")[0] == 200
        # A worker that is killed comes back, and a stop is heeded.
        victim = wait_until(lambda: found[0] if len(found := daemon.workers()) == 2 else 0, "two workers")
        daemon.signal(signal.SIGKILL, victim)
        wait_until(lambda: len(set(daemon.workers()) - {victim}) == 2, "another worker")
        daemon.wait_ready()
        assert daemon.stop() == 0
        assert not (daemon.directory / "pid").exists()
        assert not (daemon.directory / "control.sock").exists()


@pytest.mark.parametrize("case", [cases.nothing, cases.much, cases.a_directory_that_is_gone])
def test_what_is_changed_is_put_back_and_applied(case: Callable[[], None], tmp_path: Path) -> None:
    done = programs.run(case, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
