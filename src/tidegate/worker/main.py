"""A worker's life, top to bottom: load the application, enter its lifespan, wait, serve, drain, leave the lifespan.

From its supervisor it receives, by the pipe, the command to serve, then perhaps to serve for another slot or to drain;
and one command after the other to stop, each more urgent than the last (drain.py), of which SIGTERM is the first. It
reports its stages, and why it ends if that is a failure.

What must not live here: forking (supervisor), loading (loader.py), the policy of the drain (drain.py), the protocol.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from setproctitle import setproctitle

from .. import logs
from .._core.counters import Row, use
from ..app import App, is_asgi, is_map
from ..asyncio.admission import Admission
from ..asyncio.lifespan import LifespanFailed
from ..asyncio.options import ProcessPolicy
from ..asyncio.server import Server, serve, unix_serve
from ..bus.declaration import declare
from ..bus.links import Links, provide
from ..config.schema import Config
from ..ipc.exit_status import LAST_WORDS, NOT_BOUND, NOT_LOADED, STOPPED, UNEXPECTED
from ..ipc.pipe import Command, Pipe, Report, Stage, StopMode
from ..metrics import application
from ..process import forks, streams, surroundings
from .admission import make_admission
from .drain import Drain, StopRequest
from .loader import LoadError, load, trace_of
from .self_metrics import BusRecord, record_capacity, record_collections, record_send_queues
from .tls import TlsError, make_context

if TYPE_CHECKING:
    from ..asyncio.http_service import HttpService
    from ..bus.policies import Policies
    from ..bus.sharing import Share

__all__ = ["run"]

logger = logging.getLogger("tidegate.worker")

TICK = 0.1  # seconds between heartbeats
FLUSH = LAST_WORDS - 1  # seconds to wait at the end for what was published
TICKS_PER_MEASURE = 10  # of what takes time to measure


def run(config: Config, slot: int, sockets: list[socket.socket], row: Row, pipe: socket.socket) -> int:
    """Be the worker of a slot until it is stopped; return the exit status.

    Parameters:
        config: the settings.
        slot: its number.
        sockets: what to serve, bound.
        row: where it counts.
        pipe: its end of the supervisor's socket pair; end of file means that the supervisor is gone: drain.
    """
    setproctitle(f"tidegate: worker {slot}")
    logs.set_role(
        f"worker {slot}", count=lambda lines: row.inc("log_messages_dropped", by=lines), **config.log_options()
    )
    logs.show_stacks()
    use(row)
    forks.keep(pipe.fileno())
    forks.on_application_fork(partial(forks.release, forks.addresses(sockets)))
    if config.admin is not None:
        application.count_as(str(row.index))
    supervisor = Pipe(pipe, Command)
    supervisor.send(Report("starting"), wait=True)
    pid = os.getpid()
    try:
        return _run(config, sockets, row, supervisor)
    except (LoadError, TlsError) as error:
        supervisor.send(Report("gone", str(error), NOT_LOADED), wait=True)
        return NOT_LOADED
    except BaseException as error:
        if os.getpid() != pid:  # a child that the application has forked
            raise
        supervisor.send(Report("gone", f"the worker failed\n{trace_of(error)}", UNEXPECTED), wait=True)
        return UNEXPECTED


def _run(config: Config, sockets: list[socket.socket], row: Row, supervisor: Pipe[Command]) -> int:
    tls = make_context(config)  # before the application goes to another directory
    if surroundings.imported is not None:
        surroundings.imported.apply()
    app = load(config.application)
    _reclaim_signals()
    admission = make_admission(config, tls, app.ssl, row)
    # What has been imported stays: the collector need not look at it with every new connection.
    gc.collect()
    gc.freeze()
    record_collections(row)
    record_capacity(row, config.max_connections)
    worker = Worker(config, app, sockets, row, supervisor, admission)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    status = _turn(runner.get_loop(), worker)
    if worker.stubborn:
        # Closing the loop would wait for them for ever.
        logger.error("%d handlers do not end although they were cancelled: they are abandoned", worker.stubborn)
        logging.shutdown()
        logs.flush()
        streams.flush()
        os._exit(status)
    try:
        runner.close()
    except (SystemExit, KeyboardInterrupt):  # of a task that was cancelled
        logger.error("a task of the application raised this when it was cancelled", exc_info=True)

    return status


def _reclaim_signals() -> None:
    """Undo what the application has changed, and ignore what would end a worker: SIGPIPE, a terminal's SIGINT."""
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, lambda *_: None)
        forks.handled(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _turn(loop: asyncio.AbstractEventLoop, worker: Worker) -> int:
    """Run the worker to its end; return its exit status.

    A task or a callback that raises SystemExit or KeyboardInterrupt stops the loop, with every connection in it: the
    loop is started again, since that is not how an application ends a worker.
    """
    life = loop.create_task(worker.live())
    pid = os.getpid()
    while True:
        try:
            return loop.run_until_complete(life)
        except (SystemExit, KeyboardInterrupt):
            if life.done() or os.getpid() != pid:
                raise
            logger.error("a task or callback of the application raised this; the worker goes on", exc_info=True)


class Worker:
    """What happens in the event loop."""

    def __init__(
        self,
        config: Config,
        app: App,
        sockets: list[socket.socket],
        row: Row,
        supervisor: Pipe[Command],
        admission: Admission,
    ) -> None:
        self.config, self.app, self.sockets, self.row, self.supervisor = config, app, sockets, row, supervisor
        self.admission = admission
        # One connection is not an event to an operator.
        self._policy = ProcessPolicy(admission, failures=BaseException, event_level=logging.DEBUG)
        self.stubborn = 0  # handlers that did not end
        self._stop_request: StopRequest
        self._life: asyncio.Task[int]
        self._booting = True
        self._serving = asyncio.Event()
        self._servers: list[Server] = []
        self._adopted: dict[int, list[Server]] = {}  # by the slot whose sockets they serve
        self._adopting = asyncio.Lock()  # commands are carried out in their order
        self._http: HttpService | None = None  # of an ASGI application
        self._links: Links | None = None  # to the hub
        self._bus_record: BusRecord | None = None
        self._policies: Policies | None = None  # of the bus
        self._link = -1  # the descriptor of the last one
        # The path of local:///PATH is the hub's.
        self._bus_url = "local://" if config.bus.startswith("local://") else config.bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = 0.0
        self._ticks = 0

    async def live(self) -> int:
        """Live from the loop's first moment to its last; return the exit status."""
        loop = asyncio.get_running_loop()
        self._stop_request = StopRequest()
        self._life = loop.create_task(self._live())
        loop.add_signal_handler(signal.SIGTERM, self._stop, StopMode.GRACEFUL)
        forks.handled(signal.SIGTERM)
        forks.on_application_fork(partial(self._close_in_child, forks.addresses(self.sockets)))
        loop.add_reader(self.supervisor, self._on_supervisor)
        self._due = time.monotonic()
        self._tick()
        try:
            status = await self._life
        except asyncio.CancelledError:
            if not self._stop_request.mode:
                raise
            status = STOPPED
        if status == STOPPED:
            self._report("gone")
        return status

    # The stages of its life.

    async def _live(self) -> int:
        """Enter the lifespan, serve, drain, leave the lifespan.

        In one task: lifespans may use task-bound context managers (anyio's cancel scopes).
        """
        try:
            async with self._bus(), self.app.make_lifespan(), self._asgi_lifespan():
                self._report("booted")
                await self._serving.wait()
                self._servers = [await self._serve(sock) for sock in self.sockets]
                self._booting = False
                self._report("ready", declares=declare(self.app.channels, self.config.bus_message_limit))
                if self._policies is not None:
                    self._policies.in_force = True
                await self._wait()
                drain = self._drain()
                drain.stop_accepting()
                self._report("draining")
                self.stubborn = await drain.run()
        except asyncio.CancelledError as error:
            if self._stop_request.mode:
                raise
            return self._failed(error)
        except BaseException as error:  # SystemExit too: the supervisor is told whatever a lifespan raises
            return self._failed(error)
        return STOPPED

    @asynccontextmanager
    async def _bus(self) -> AsyncIterator[None]:
        """Have the bus of the application's channels, for its lifespan and all servers."""
        if self.app.channels is None:
            yield
            return
        from ..asyncio.membership import ConnectionTable
        from ..bus.sharing import share

        self._links = Links(f"worker process {os.getpid()}", self._ask_for_link)
        if self._bus_url == "local://":
            provide(self._links)
        bus = share(self._bus_url, self.app.channels, ConnectionTable, self.config.channel_limits)
        self._bus_record = BusRecord(self.row, bus.bus, self.config.needs_bus)
        self._bus_record.update()
        self._policies = bus.bus.policies
        self._policies.in_force = False
        await bus.enter(required=False)  # without it, all else is served
        try:
            yield
        finally:
            await self._leave_bus(bus)
            self._bus_record.update()

    async def _leave_bus(self, bus: Share) -> None:
        """Wait until what handlers have published in their last moments has got to the bus, and leave it."""
        try:
            async with asyncio.timeout(FLUSH):
                await bus.leave()
        except TimeoutError:
            logger.warning("the bus has not taken all that was published within %g s", FLUSH)

    @asynccontextmanager
    async def _asgi_lifespan(self) -> AsyncIterator[None]:
        """Be the lifespan of an ASGI application."""
        application = self.app.asgi
        if application is None:
            yield
            return
        from ..asyncio.http_service import HttpService
        from ..asyncio.lifespan import lifespan

        state: dict[str, Any] = {}
        self._http = HttpService(
            application, root_path=self.config.root_path, state=state, keep_alive=self.config.keep_alive
        )
        async with lifespan(application, state):
            yield

    def _ask_for_link(self) -> None:
        self.supervisor.send(Report("starting", link=True), wait=True)

    async def _wait(self) -> None:
        """Serve until the worker is told to stop, or the lifespan ends: a task of a group in it has failed, say."""
        try:
            await self._stop_request.wait(StopMode.GRACEFUL)
        except asyncio.CancelledError:
            logger.error("the lifespan of %s is cancelled: this worker drains and ends", self.config.application)
            self._stop_request.escalate(StopMode.GRACEFUL)

    def _serve(self, sock: socket.socket) -> Server:
        """Make a server on one of the sockets, to be awaited."""
        options = {**self.config.serve_options(), **self.app.serve_options()}
        options |= {"backlog": self.config.backlog, "policy": self._policy}
        if self.app.channels is not None:
            options |= {"bus": self._bus_url, "channel_limits": self.config.channel_limits}
        if self._http is not None:
            options["http"] = self._http
        create, create_unix = _creators(self.app)
        if options.pop("ssl", None) is not None or self.admission.tls is not None:  # which TransportSetup begins
            options |= {"ssl": True} if is_map(self.app.handler) else {}
        if sock.family == socket.AF_UNIX:
            # Its file is the supervisor's: it outlives the worker.
            return create_unix(self.app.handler, sock=sock, cleanup_socket=False, **options)
        return create(self.app.handler, sock=sock, **options)

    def _drain(self) -> Drain:
        return Drain(
            self._all_servers(),
            self._stop_request,
            window=self.config.drain_window,
            timeout=self.config.graceful_timeout,
        )

    def _all_servers(self) -> list[Server]:
        return [*self._servers, *(server for servers in self._adopted.values() for server in servers)]

    async def _adopt(self, slot: int, sockets: list[socket.socket]) -> None:
        """Serve a slot that has no worker."""
        async with self._adopting:
            # Servers of an earlier adoption may still have connections to close.
            servers = [server for server in self._adopted.get(slot, ()) if server.busy]
            self._adopted[slot] = servers
            servers += [await self._serve(sock) for sock in sockets]

    async def _release(self, slot: int) -> None:
        """Accept no more for that slot; connections that came from there stay."""
        async with self._adopting:
            for server in self._adopted.get(slot, ()):
                server.stop_accepting()

    def _failed(self, error: BaseException) -> int:
        """Report why the lifespan failed; return the exit status."""
        if not self._booting:
            logger.error("the lifespan of %s failed at its end\n%s", self.config.application, trace_of(error))
            self._report("gone")
            return UNEXPECTED
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            self._report("gone", f"cannot listen: {error}", NOT_BOUND)
            return NOT_BOUND
        text = f"the application {self.config.application} failed to start"
        text += f": {error}" if isinstance(error, LifespanFailed) else f"\n{trace_of(error)}"
        self._report("gone", text, NOT_LOADED)
        return NOT_LOADED

    # Reports to the supervisor, and commands from it.

    def _report(
        self, stage: Stage, error: str | None = None, exit: int | None = None, declares: bytes | None = None
    ) -> None:
        said = msgspec.UNSET if declares is None else msgspec.Raw(declares)
        self.supervisor.send(Report(stage, error, exit, declares=said), wait=True)

    def _stop(self, mode: StopMode) -> None:
        self._stop_request.escalate(mode)
        if self._booting:
            self._life.cancel("the worker ends")

    def _on_supervisor(self) -> None:
        for command in self.supervisor.receive():
            self._execute(command)
        if self.supervisor.ended:
            asyncio.get_running_loop().remove_reader(self.supervisor)
            logger.error("the supervisor is gone: this worker drains and ends")
            # Without a supervisor to kill it, an alarm ends it, whatever it does by then.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self.config.graceful_timeout + LAST_WORDS)
            self._stop(StopMode.GRACEFUL)

    def _execute(self, command: Command) -> None:
        if command.reopen:
            logs.reopen()
        if command.serve:
            self._serving.set()
        if command.adopt is not None:
            self._start_task(self._adopt(command.adopt, self.supervisor.receive_sockets(command.sockets)))
        if command.link:
            self._take_link(command)
        if command.release is not None:
            self._start_task(self._release(command.release))
        if command.drain:
            self._start_task(self._drain().close_connections())
        if command.stop:
            self._stop_request.leave_queue = command.leave_queue
            self._stop(command.stop)

    def _take_link(self, command: Command) -> None:
        """Take a link to the hub, whose end must not be hidden from the hub by a child of the application."""
        assert self._links is not None  # which has asked for it
        for sock in self.supervisor.receive_sockets(command.sockets):
            forks.closed(self._link)
            self._link = sock.fileno()
            forks.keep(self._link)
            self._links.offer(sock, command.generation)

    def _close_in_child(self, addresses: set[forks.Address]) -> None:
        """Close what is the worker's, in a child that a handler has forked, which must not go on as a worker."""
        forks.release(addresses)
        self._policy.failures = Exception  # sys.exit() is right for a child
        call_soon = self._life.get_loop().call_soon
        call_soon(call_soon, call_soon, _exit_stray_child)  # a child that ends by an exception has done so by then

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        """Write the heartbeat, and how late it is."""
        now = time.monotonic()
        self.row.tick(now, max(0.0, now - self._due))
        self._ticks += 1
        if self._ticks % TICKS_PER_MEASURE == 0:
            record_send_queues(self.row)
            if self._bus_record is not None:
                self._bus_record.update()
        self._due = now + TICK
        asyncio.get_running_loop().call_later(TICK, self._tick)


def _exit_stray_child() -> None:
    logger.error(
        "a child that a handler forked has returned to the event loop, where it would read the worker's connections"
        ": it is ended; it must call os._exit(), or run another program"
    )
    logs.flush()
    os._exit(UNEXPECTED)


def _creators(app: App) -> tuple[Callable[..., Server], Callable[..., Server]]:
    """Return the functions that make servers of an application, on a TCP socket and on a Unix socket."""
    if is_asgi(app.handler):
        from ..asyncio.asgi import serve_asgi

        return serve_asgi, partial(serve_asgi, unix=True)
    if is_map(app.handler):
        from ..asyncio.router import route, unix_route  # with werkzeug, for those alone who route

        return route, unix_route
    return serve, unix_serve
