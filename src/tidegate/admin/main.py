"""The admin process's life, from the fork to its end: it serves its sockets until the supervisor ends it.

It lives as long as the supervisor, so that /readyz says 503 while workers drain, and it ends when the supervisor does.
Its own connections count in a private row: what /metrics says is the workers'.

What must not live here: what it answers (routes.py, feed.py), decisions about the daemon (supervisor).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Collection
from functools import partial

import msgspec
import uvloop
from setproctitle import setproctitle

from .. import logs
from .._core.scoreboard import Scoreboard
from ..asyncio.options import ProcessPolicy
from ..asyncio.request_body import BodyConnection
from ..asyncio.server import Server, handshakes_done, serve
from ..bus.outside import Connection
from ..config.schema import AdminAccess
from ..ipc.pipe import Command, Pipe, Report
from ..process import forks
from .admission import BACKLOG, AdminAdmission
from .authorization import Authorization, select_subprotocol
from .feed import LIMIT, Feed
from .publish import Publisher
from .routes import Routes

TICK = 1.0
"""Seconds between two reports, by which the supervisor knows that it does not hang."""

ASK_SECONDS = 1.0
"""How long a client that has connected, but not asked yet, may delay the end."""

CLOSE_SECONDS = 1.0
"""How long a client that reads its answer slowly may delay the end."""

CLOSE_TIMEOUT = 5.0
"""Seconds for the rest of an answer, and for a closing handshake."""

OPEN_TIMEOUT = 5.0
"""Seconds for a request: clients of the admin address are near."""


def run(
    scoreboard: Scoreboard,
    sockets: list[socket.socket],
    pipe: socket.socket | None,
    access: AdminAccess,
    before: Collection[int] = (),
    bus: str | None = None,
) -> int:
    """Serve the admin pages on `sockets` until SIGTERM, or until the other end of `pipe` closes; return the status.

    `access` says who may ask, `before` are the admin processes before this one, which may not have ended yet, and `bus`
    is the URL of the bus for other processes than workers.

    Called in a forked child, whose signals may still be masked. On `pipe` it reports, like a worker, that it is ready,
    and again each second, by which the supervisor knows that it does not hang.
    """
    setproctitle("tidegate: admin")
    logs.set_role("admin", access=False)
    logs.show_stacks()
    signal.set_wakeup_fd(-1)  # of the supervisor
    forks.leave_signals_to_supervisor()
    if pipe is not None:
        forks.keep(pipe.fileno())
    forks.on_application_fork(partial(forks.release, forks.addresses(sockets)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(scoreboard, sockets, pipe, access, before, bus))
    return 0


async def _live(
    scoreboard: Scoreboard,
    sockets: list[socket.socket],
    pipe: socket.socket | None,
    access: AdminAccess,
    before: Collection[int],
    bus: str | None,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    forks.handled(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    feed = Feed(scoreboard)
    publisher = Publisher(bus)
    publish = None
    if access.publish_token is not None:
        publish = publisher, Authorization(access.publish_token, flag="--publish-token")
    answers = Routes(scoreboard, Authorization(access.token, access.hosts), feed.busy, before, publish)
    policy = ProcessPolicy(AdminAdmission(), event_level=logging.DEBUG)
    feed.begin()
    servers = []
    for sock in sockets:
        server = serve(
            feed,
            sock=sock,
            process_request=answers,
            select_subprotocol=select_subprotocol,
            compression=None,
            backlog=BACKLOG,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            max_size=1024,
            max_queue=1,
            broadcast_limit=LIMIT,
            create_connection=BodyConnection,
            policy=policy,
        )
        servers.append(await server)
    if pipe is not None:
        supervisor = Pipe(pipe, Command)
        loop.add_reader(pipe, _on_supervisor, supervisor, stopping, publisher.connection)
        _send_ready(supervisor)
    await stopping.wait()
    if pipe is not None:
        loop.remove_reader(pipe)
    await _close(servers, feed)
    await publisher.connection.close()


async def _close(servers: list[Server], feed: Feed) -> None:
    """Answer clients that have connected, let answers be read for a moment, then abort the rest.

    At an upgrade the next admin process already accepts from the same sockets: a client that this one has accepted must
    not get a 503. uvloop's close would wait for transports that are still open.
    """
    for server in servers:
        server.stop_accepting()
    await handshakes_done(servers, ASK_SECONDS)
    feed.end()
    for server in servers:
        server.close()
    closed = asyncio.gather(*(server.wait_closed() for server in servers))
    await asyncio.wait([closed], timeout=CLOSE_SECONDS)
    if not closed.done():
        for server in servers:
            server.abort_connections()
    await closed


def _send_ready(supervisor: Pipe[Command]) -> None:
    """Report "ready" now, and again as long as the event loop turns."""
    if supervisor.fileno() < 0:
        return
    # It may fail: the supervisor is gone, which the reader notices, or is stopped, with a full pipe.
    supervisor.send(Report("ready"))
    asyncio.get_running_loop().call_later(TICK, _send_ready, supervisor)


def _on_supervisor(supervisor: Pipe[Command], stopping: asyncio.Event, connection: Connection) -> None:
    """Do what it says, and end with the supervisor. To stop, the supervisor sends SIGTERM."""
    for command in supervisor.receive():
        if command.reopen:
            logs.reopen()
        if command.declares is not msgspec.UNSET:
            connection.declare(command.declares)
    if supervisor.ended:
        stopping.set()
