"""A worker's life, top to bottom: load the application, enter its lifespan, wait, serve, drain, leave.

What it hears, from its supervisor by the pipe, is when to serve, then perhaps to serve for another slot or to rest; and
one order after the other to end, each more urgent than the last (drain.py), of which SIGTERM is the first. What it
tells are its stages, and why it ends if that is a failure.

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
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import uvloop
from setproctitle import setproctitle

from .. import logs
from .._core.counters import Row, use
from ..app import App, is_map
from ..asyncio.admission import Admission
from ..asyncio.options import ProcessPolicy
from ..asyncio.server import Server, serve, unix_serve
from ..config.schema import Config
from ..ipc.exit_status import LAST_WORDS, NOT_BOUND, NOT_LOADED, STOPPED, UNEXPECTED
from ..ipc.pipe import Level, Order, Pipe, Report, Stage
from ..metrics import application
from ..process import forks, streams, surroundings
from .admission import make_admission
from .drain import Drain, Orders
from .loader import LoadError, load, trace_of
from .self_metrics import measure_queues, tell_capacity, watch_collector
from .tls import TlsError, make_context

__all__ = ["run"]

logger = logging.getLogger("tidegate.worker")

TICK = 0.1  # seconds between heartbeats
TICKS_PER_MEASURE = 10  # of what is not free


def run(config: Config, slot: int, sockets: list[socket.socket], row: Row, pipe: socket.socket) -> int:
    """Be the worker of a slot, until the order to end; the exit status.

    Parameters:
        config: the settings.
        slot: its number.
        sockets: what to serve, bound.
        row: where it counts.
        pipe: its end of the supervisor's socket pair; its end of file is an order to drain.
    """
    setproctitle(f"tidegate: worker {slot}")
    logs.become(f"worker {slot}", count=lambda lines: row.inc("log_messages_dropped", by=lines), **config.log_options())
    logs.show_stacks()
    use(row)
    forks.keep(pipe.fileno())
    forks.lend_nothing(partial(forks.release, forks.addresses(sockets)))
    if config.admin is not None:
        application.count_as(str(row.index))
    supervisor = Pipe(pipe, Order)
    supervisor.send(Report("starting"), wait=True)
    pid = os.getpid()
    try:
        return _run(config, sockets, row, supervisor)
    except (LoadError, TlsError) as error:
        supervisor.send(Report("gone", str(error), NOT_LOADED), wait=True)
        return NOT_LOADED
    except BaseException as error:
        if os.getpid() != pid:  # it is a child that the application has forked, and ends as it likes
            raise
        supervisor.send(Report("gone", f"the worker failed\n{trace_of(error)}", UNEXPECTED), wait=True)
        return UNEXPECTED


def _run(config: Config, sockets: list[socket.socket], row: Row, supervisor: Pipe[Order]) -> int:
    tls = make_context(config)  # before the application goes to another directory
    if surroundings.imported is not None:
        surroundings.imported.apply()
    app = load(config.application)
    _reclaim_signals()
    admission = make_admission(config, tls, app.ssl, row)
    # What is there now stays: the collector need not look at it with every new connection.
    gc.collect()
    gc.freeze()
    watch_collector(row)
    tell_capacity(row, config.max_connections)
    worker = Worker(config, app, sockets, row, supervisor, admission)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    status = _turn(runner.get_loop(), worker)
    if worker.stubborn:
        # Closing the loop would wait for them for ever.
        logger.error("%d handlers go on although they were cancelled: they are abandoned", worker.stubborn)
        logging.shutdown()
        logs.flush()
        streams.flush()
        os._exit(status)
    try:
        runner.close()
    except (SystemExit, KeyboardInterrupt):  # of a task that was cancelled
        logger.error("a task of the application raised this as it was cancelled", exc_info=True)
    return status


def _reclaim_signals() -> None:
    """Undo what a program does for itself, and what would end a worker: by a client that is gone, or a terminal."""
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, lambda *_: None)
        forks.handled(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _turn(loop: asyncio.AbstractEventLoop, worker: Worker) -> int:
    """Have the worker live; its exit status.

    A task or a callback that raises SystemExit or KeyboardInterrupt stops the loop, with everybody's connections in it:
    that is no way for an application to end a worker.
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
        supervisor: Pipe[Order],
        admission: Admission,
    ) -> None:
        self.config, self.app, self.sockets, self.row, self.supervisor = config, app, sockets, row, supervisor
        self.admission = admission
        # A line for each connection is not what an operator calls an event.
        self._policy = ProcessPolicy(admission, failures=BaseException, event_level=logging.DEBUG)
        self.stubborn = 0  # handlers that did not end
        self._orders: Orders
        self._life: asyncio.Task[int]
        self._booting = True
        self._serving = asyncio.Event()
        self._servers: list[Server] = []
        self._adopted: dict[int, list[Server]] = {}  # by the slot whose sockets they serve
        self._adopting = asyncio.Lock()  # orders are heeded in their order
        self._tasks: set[asyncio.Task[None]] = set()
        self._due = 0.0
        self._ticks = 0

    async def live(self) -> int:
        """From the loop's first moment to its last; the exit status."""
        loop = asyncio.get_running_loop()
        self._orders = Orders()
        self._life = loop.create_task(self._live())
        loop.add_signal_handler(signal.SIGTERM, self._on_order, Level.DRAIN)
        forks.handled(signal.SIGTERM)
        forks.lend_nothing(partial(self._let_go, forks.addresses(self.sockets)))
        loop.add_reader(self.supervisor, self._on_supervisor)
        self._due = time.monotonic()
        self._tick()
        try:
            status = await self._life
        except asyncio.CancelledError:
            if not self._orders.level:
                raise
            status = STOPPED
        if status == STOPPED:
            self._tell("gone")
        return status

    # The stages of its life.

    async def _live(self) -> int:
        """Enter the lifespan, serve, drain, leave the lifespan: in one task, as what a lifespan is made of wants it."""
        try:
            async with self.app.make_lifespan():
                self._tell("booted")
                await self._serving.wait()
                self._servers = [await self._serve(sock) for sock in self.sockets]
                self._booting = False
                self._tell("ready")
                await self._wait()
                drain = self._drain()
                drain.begin()
                self._tell("draining")
                self.stubborn = await drain.run()
        except asyncio.CancelledError as error:
            if self._orders.level:
                raise
            return self._failed(error)
        except BaseException as error:  # SystemExit too: whatever a lifespan raises, somebody must hear of it
            return self._failed(error)
        return STOPPED

    async def _wait(self) -> None:
        """Serve until there is an order to drain, or the lifespan ends: a task of a group in it has failed, say."""
        try:
            await self._orders.wait(Level.DRAIN)
        except asyncio.CancelledError:
            logger.error("the lifespan of %s is cancelled: this worker drains and ends", self.config.application)
            self._orders.give(Level.DRAIN)

    def _serve(self, sock: socket.socket) -> Server:
        """A server on one of the sockets, to be awaited."""
        options = {**self.config.serve_options(), **self.app.serve_options()}
        options |= {"backlog": self.config.backlog, "policy": self._policy}
        create, create_unix = _creators(self.app)
        if options.pop("ssl", None) is not None or self.admission.tls is not None:  # which TransportSetup begins
            options |= {"ssl": True} if is_map(self.app.handler) else {}
        if sock.family == socket.AF_UNIX:
            # Its file is the supervisor's: it outlives the worker.
            return create_unix(self.app.handler, sock=sock, cleanup_socket=False, **options)
        return create(self.app.handler, sock=sock, **options)

    def _drain(self) -> Drain:
        return Drain(
            self._all_servers(), self._orders, window=self.config.drain_window, timeout=self.config.graceful_timeout
        )

    def _all_servers(self) -> list[Server]:
        return [*self._servers, *(server for servers in self._adopted.values() for server in servers)]

    async def _adopt(self, slot: int, sockets: list[socket.socket]) -> None:
        """Serve a slot that has no worker."""
        async with self._adopting:
            # Those of an earlier time may still have somebody who is to be taken leave of.
            servers = [server for server in self._adopted.get(slot, ()) if server.connections or server.handshakes]
            self._adopted[slot] = servers
            servers += [await self._serve(sock) for sock in sockets]

    async def _release(self, slot: int) -> None:
        """Serve it no longer; whoever has come from there stays."""
        async with self._adopting:
            for server in self._adopted.get(slot, ()):
                server.stop_accepting()

    def _failed(self, error: BaseException) -> int:
        if not self._booting:
            logger.error("the lifespan of %s failed at its end\n%s", self.config.application, trace_of(error))
            self._tell("gone")
            return UNEXPECTED
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            self._tell("gone", f"cannot listen: {error}", NOT_BOUND)
            return NOT_BOUND
        self._tell("gone", f"the application {self.config.application} failed to start\n{trace_of(error)}", NOT_LOADED)
        return NOT_LOADED

    # What it tells, and what it hears.

    def _tell(self, stage: Stage, error: str | None = None, exit: int | None = None) -> None:
        self.supervisor.send(Report(stage, error, exit), wait=True)

    def _on_order(self, level: Level) -> None:
        self._orders.give(level)
        if self._booting:
            self._life.cancel("the worker ends")

    def _on_supervisor(self) -> None:
        for order in self.supervisor.receive():
            self._heed(order)
        if self.supervisor.ended:
            asyncio.get_running_loop().remove_reader(self.supervisor)
            logger.error("the supervisor is gone: this worker drains and ends")
            # Nobody is left who would end it: it ends itself, whatever it does by then.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, self.config.graceful_timeout + LAST_WORDS)
            self._on_order(Level.DRAIN)

    def _heed(self, order: Order) -> None:
        if order.reopen:
            logs.reopen()
        if order.serve:
            self._serving.set()
        if order.adopt is not None:
            self._begin(self._adopt(order.adopt, self.supervisor.take(order.sockets)))
        if order.release is not None:
            self._begin(self._release(order.release))
        if order.rest:
            self._begin(self._drain().rest())
        if order.end:
            self._orders.leave_queue = order.leave_queue
            self._on_order(order.end)

    def _let_go(self, addresses: set[forks.Address]) -> None:
        """In a child that a handler has forked: it has nothing of the worker, and must not go on as if it were one."""
        forks.release(addresses)
        self._policy.failures = Exception  # sys.exit() is right for a child
        call_soon = self._life.get_loop().call_soon
        call_soon(call_soon, call_soon, _strayed)  # one that ends by an exception has done so by then

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        """The heartbeat, and how late it is."""
        now = time.monotonic()
        self.row.tick(now, max(0.0, now - self._due))
        self._ticks += 1
        if self._ticks % TICKS_PER_MEASURE == 0:
            measure_queues(self.row)
        self._due = now + TICK
        asyncio.get_running_loop().call_later(TICK, self._tick)


def _strayed() -> None:
    logger.error(
        "a child that a handler forked has returned to the event loop, where it would take what is the worker's"
        ": it is ended; it must call os._exit(), or run another program"
    )
    logs.flush()
    os._exit(UNEXPECTED)


def _creators(app: App) -> tuple[Callable[..., Server], Callable[..., Server]]:
    """What makes the servers of an application, on a TCP socket and on a Unix socket."""
    if is_map(app.handler):
        from ..asyncio.router import route, unix_route  # with werkzeug, which only those who route wait for

        return route, unix_route
    return serve, unix_serve
