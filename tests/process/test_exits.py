"""What an application raises that is no Exception, wherever it does: the status, the reason, and everybody else.

What must not live here: errors of other kinds (test_crash.py, test_reload.py), the library without a daemon.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from tests.support.harness import APPLICATIONS, Daemon, wait_until
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

RAISED = {
    "SystemExit": "sys.exit('DATABASE_URL is not set')",
    "KeyboardInterrupt": "raise KeyboardInterrupt('DATABASE_URL is not set')",
    "GeneratorExit": "raise GeneratorExit('DATABASE_URL is not set')",
    "CancelledError": "raise asyncio.CancelledError('DATABASE_URL is not set')",
    "Own": "raise Own('DATABASE_URL is not set')",
}

START = """
    import asyncio, contextlib, sys
    from tidegate import App

    class Own(BaseException): ...

    {at_import}

    @contextlib.asynccontextmanager
    async def lifespan():
        {in_lifespan}
        yield

    async def handler(websocket):
        async for message in websocket:
            await websocket.send(message)

    app = App(handler, lifespan=lifespan)
"""


def start(at_import: str = "", in_lifespan: str = "") -> str:
    return START.format(at_import=at_import, in_lifespan=in_lifespan or "pass")


@pytest.mark.parametrize(
    "what", [name if name == "SystemExit" else pytest.param(name, marks=pytest.mark.slow) for name in RAISED]
)
@pytest.mark.parametrize(("where", "options"), [("import", ()), ("import", ("--preload",)), ("lifespan", ())])
def test_at_the_start_it_is_status_3_and_the_log_file_and_the_check_have_the_reason(
    where: str, options: tuple[str, ...], what: str, tmp_path: Path
) -> None:
    source = start(at_import=RAISED[what]) if where == "import" else start(in_lifespan=RAISED[what])
    log = tmp_path / "log"
    with Daemon(source, *options, "--log-file", str(log), target="application:app", wait=False) as daemon:
        assert daemon.wait() == 3
        assert "Traceback" not in daemon.log
    assert f"{what}: DATABASE_URL is not set" in log.read_text()
    assert log.read_text().count("DATABASE_URL is not set") <= 3  # the source's own line is one
    with Daemon(source, *options, command="check", target="application:app", wait=False) as check:
        assert check.wait() == 3
        assert f"{what}: DATABASE_URL is not set" in check.log


@pytest.mark.parametrize("what", ["SystemExit", "CancelledError"])
@pytest.mark.parametrize("where", ["at_import", "in_lifespan"])
async def test_a_reload_tells_the_reason_and_changes_nothing(where: str, what: str) -> None:
    with Daemon(start(), "--control", "control.sock", target="application:app") as daemon:
        async with connect(daemon.uri) as websocket:
            (daemon.directory / "application.py").write_text(
                "\n".join(line[4:] for line in start(**{where: RAISED[what]}).splitlines())
            )
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "tidegate", "reload", "--control", str(daemon.directory / "control.sock")],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 1
            assert f"{what}: DATABASE_URL is not set" in done.stderr
            await websocket.send("still there")
            assert await websocket.recv() == "still there"
        assert daemon.stop() == 0


async def test_in_a_handler_a_task_a_callback_or_a_hook_it_harms_no_bystander() -> None:
    with Daemon(APPLICATIONS / "raises.py", target="application:app") as daemon:
        [worker] = daemon.workers()
        async with connect(daemon.uri) as bystander:
            for what in ("exit", "interrupt", "generator", "own"):
                for how in ("raise", "await", "group", "thread"):
                    async with connect(daemon.uri) as websocket:
                        await websocket.send(f"{how} {what}")
                        with pytest.raises(ConnectionClosedError) as closed:
                            await websocket.recv()
                        assert closed.value.rcvd is not None, (how, what)
                        assert closed.value.rcvd.code == 1011
                for how in ("task", "callback"):
                    async with connect(daemon.uri) as websocket:
                        await websocket.send(f"{how} {what}")
                        assert await websocket.recv() == f"{how} {what}"
                for path, protocols in ((f"hook-{what}", []), (f"response-{what}", []), ("", [what])):
                    with pytest.raises(InvalidStatus) as refused:
                        await connect(daemon.uri + path, subprotocols=protocols or None)  # type: ignore[arg-type]
                    assert refused.value.response.status_code == 500
                await bystander.send(what)
                assert await bystander.recv() == what
        assert daemon.workers() == [worker]
        assert daemon.stop() == 0
        for words in ("connection handler failed", "process_request failed", "SystemExit: by order", "Own: by order"):
            assert words in daemon.log


@pytest.mark.parametrize("how", ["exit", "error"])
async def test_a_lifespan_that_ends_while_it_serves_has_the_worker_drain(how: str) -> None:
    with Daemon(APPLICATIONS / "lifespan_fails.py", target="application:app", env={"HOW": how}) as daemon:
        [worker] = daemon.workers()
        async with connect(daemon.uri) as websocket:
            (daemon.directory / "fail").touch()
            with pytest.raises(ConnectionClosedOK) as closed:
                await websocket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        wait_until(lambda: daemon.workers() not in ([], [worker]), "another worker is there")
        daemon.wait_ready()
        async with connect(daemon.uri) as websocket:
            await websocket.send("served")
            assert await websocket.recv() == "served"
        assert daemon.stop() == 0
        assert "lost the database" in daemon.log


async def test_signals_that_an_application_sets_as_a_script_does_end_no_worker() -> None:
    source = """
        import signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

        async def handler(websocket):
            async for message in websocket:
                for _ in range(1000):
                    await websocket.send(message * 1000)
                await websocket.send("done")
    """
    with Daemon(source) as daemon:
        [worker] = daemon.workers()
        for _ in range(3):
            gone = await connect(daemon.uri)
            await gone.send("x" * 100)
            gone.transport.abort()
        daemon.signal(signal.SIGINT, worker)
        async with connect(daemon.uri) as websocket:
            await websocket.send("x")
            while (await websocket.recv()) != "done":
                pass
        assert daemon.workers() == [worker]
        daemon.signal(signal.SIGTERM, worker)  # which drains it
        wait_until(lambda: daemon.workers() not in ([], [worker]), "another worker is there")
        daemon.wait_ready()
        assert daemon.stop() == 0
