"""One link to a Redis server: found, checked, opened, watched, until it ends for whatever reason.

    Link     two connections to one server: commands, and what is subscribed
    Server   what the server says of itself

What is checked at each link: that it is a master, of a release that has what is needed, alone (not a cluster), and that
it throws nothing away when its memory is full. What must not live here: channels, what is sent (redis.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import hiredis

from ..exceptions import BusDown, BusError
from .redis_connection import DEADLINE, Connection, Refused, Subscriber, give
from .redis_scripts import SCRIPTS
from .watch import SILENCE, Watch

if TYPE_CHECKING:
    from .redis_scripts import Script
    from .redis_url import RedisUrl

__all__ = ["Link", "Server", "find_master", "is_down"]

logger = logging.getLogger("tidegate.bus")

BATCH: Final = 512
"""Channels in one SUBSCRIBE."""

SENTINEL_TIMEOUT: Final = 1.0
"""Seconds for a sentinel's answer; there are others."""

OLDEST: Final = (6, 0)
"""Release that has users and passwords, and ranges without their ends."""

PING: Final = 10
"""Seconds without a command before a PING: a server may end connections that are idle."""

# Answers that say that the server is of no use now, and may be later, or another one.
_DOWN = re.compile(r"\b(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|UNBLOCKED|TRYAGAIN|BUSY)\b")


class Server(NamedTuple):
    """What a server says of itself.

    Attributes:
        run_id: of its process.
        replication_id: of the history that it and its replicas share.
    """

    run_id: str
    replication_id: str


class Link:
    """One link.

    Parameters:
        url: of the server.
        name: what operators see in CLIENT LIST.
        service: the wire name of this process's own channel.
        receive: takes the names of channels with what came.
        probe: what is published to the service channel.

    Attributes:
        ended: set, with the reason, when the link has ended.
        server: what the server says of itself.
    """

    def __init__(
        self,
        url: RedisUrl,
        name: str,
        service: bytes,
        receive: Callable[[list[tuple[bytes, bytes]]], None],
        probe: Callable[[], bytes],
    ) -> None:
        self._url, self._name, self._service, self._probe = url, name, service, probe
        self._give = receive
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.server = Server("", "")
        self.commands: Connection
        self.subscriber: Subscriber
        self._open: list[Connection] = []
        self._heard: asyncio.Future[None] = self._loop.create_future()
        self._watch: Watch | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect, and check the server.

        Raises:
            BusDown: it is not there, or of no use now.
            BusError: it cannot be used; the message says what would be right.
        """
        try:
            async with asyncio.timeout(DEADLINE):
                host, port = self._url.addresses[0]
                if self._url.service:
                    host, port = await find_master(self._url)
                context = make_context(self._url) if self._url.tls else None
                self.commands = await self._connect(Connection, host, port, context)
                self.subscriber = await self._connect(lambda: Subscriber(self._receive), host, port, context)
                self.server = await self._check(f"{host}:{port}")
                await self.commands.answers([self._asked(b"SCRIPT", b"LOAD", script.text) for script in SCRIPTS])
        except TimeoutError:
            raise BusDown(f"no connection to Redis within {DEADLINE:g} seconds") from None
        except OSError as error:
            raise BusDown(f"no connection to Redis: {error}") from None
        except Refused as error:
            raise _worded(error.words) from None

    async def _connect(self, make: Callable[[], Any], host: str, port: int, context: ssl.SSLContext | None) -> Any:
        _, connection = await self._loop.create_connection(
            make, host, port, ssl=context, server_hostname=host if context is not None else None
        )
        self._open.append(connection)
        connection.ended.add_done_callback(lambda future: self.fail(future.result()))
        if self._url.password:
            words = [self._url.username, self._url.password] if self._url.username else [self._url.password]
            await connection.ask(b"AUTH", *words)
        await connection.ask(b"CLIENT", b"SETNAME", self._name)
        if self._url.db:
            await connection.ask(b"SELECT", self._url.db)
        return connection

    async def _check(self, address: str) -> Server:
        """Return what the server says of itself, if it can be used."""
        sections = await self.commands.answers(
            [self._asked(b"INFO", section) for section in (b"server", b"replication", b"memory")]
        )
        lines = b"\n".join(sections).decode(errors="replace").splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        version = info.get("redis_version", "0")
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
            raise BusError(f"{address} is Redis {version}: {'.'.join(map(str, OLDEST))} or later is needed")
        if "cluster" in (info.get("redis_mode"), info.get("server_mode")):  # the word of Redis, that of Valkey
            raise BusError(f"{address} is a node of a cluster: a bus needs a server of its own, or Redis Sentinel")
        if info.get("role") != "master":
            raise BusDown(f"{address} is a {info.get('role')}, not the master")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self._url.evicting:
            raise BusError(
                f"{address} throws away what is stored when its memory is full (maxmemory-policy {policy}): set"
                " noeviction, or accept the loss of history with ?evicting=allow"
            )
        return Server(info.get("run_id", ""), info.get("master_replid", ""))

    def _asked(self, *words: bytes) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.commands.send(functools.partial(give, future), *words)
        return future

    def evaluate(
        self, take: Callable[[Any], object], script: Script, keys: Sequence[bytes], words: Sequence[bytes | str | int]
    ) -> None:
        """Run a script: by its name, or, if the server has forgotten it, by its text."""

        def known(reply: Any) -> None:
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                self.commands.send(take, b"EVAL", script.text, len(keys), *keys, *words)
            else:
                take(reply)

        self.commands.send(known, b"EVALSHA", script.sha, len(keys), *keys, *words)

    async def subscribe(self, names: Sequence[bytes]) -> None:
        """Subscribe, and return once the server has confirmed it.

        Raises:
            BusDown, BusError: it has not.
        """
        await self._in_batches(b"SUBSCRIBE", names)

    async def unsubscribe(self, names: Sequence[bytes]) -> None:
        """Unsubscribe, and return once the server has confirmed it.

        Raises:
            BusDown, BusError: it has not.
        """
        await self._in_batches(b"UNSUBSCRIBE", names)

    async def _in_batches(self, verb: bytes, names: Sequence[bytes]) -> None:
        try:
            for start in range(0, len(names), BATCH):
                await self.subscriber.answers([self.subscriber.request(verb, names[start : start + BATCH])])
        except Refused as error:
            raise _worded(error.words) from None

    async def confirm(self) -> None:
        """Return once a message that was published has come; from then on that is watched.

        Raises:
            BusDown: it has not come.
        """
        self._send_probe()
        try:
            async with asyncio.timeout(DEADLINE):
                await self._heard
        except TimeoutError:
            raise BusDown("the server takes what is published, and does not deliver it") from None
        if self.ended.done():
            raise BusDown(self.ended.result())
        self._watch = Watch(self._send_probe, self.fail, SILENCE)
        self._timer = self._loop.call_later(1.0, self._look)

    def _send_probe(self) -> None:
        self.commands.send(_ignore, b"PUBLISH", self._service, self._probe())

    def _look(self) -> None:
        """Look after both connections, once a second: that they answer, and that there is something to answer."""
        for connection in self._open:
            connection.look(int(DEADLINE))
        if self.commands.idle >= PING:
            self.commands.send(_ignore, b"PING")
        self._timer = self._loop.call_later(1.0, self._look)

    def _receive(self, received: list[tuple[bytes, bytes]]) -> None:
        if self._watch is not None:
            self._watch.heard()
            if self._watch.is_probing and any(wire == self._service for wire, _ in received):
                self._watch.probed()
        elif not self._heard.done():
            self._heard.set_result(None)
        self._give(received)

    def fail(self, reason: str) -> None:
        """End; ending again does nothing."""
        if self.ended.done():
            return
        self.ended.set_result(reason)
        if self._watch is not None:
            self._watch.stop()
        if self._timer is not None:
            self._timer.cancel()
        if not self._heard.done():
            self._heard.set_result(None)
        for connection in self._open:
            connection.fail(reason)


def is_down(words: str) -> bool:
    """Return whether an error of the server says that it is of no use now."""
    return _DOWN.search(words) is not None


def make_context(url: RedisUrl) -> ssl.SSLContext:
    """Return what TLS needs.

    Raises:
        BusError: its files cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=url.ca_file)
        if url.cert_file is not None:
            context.load_cert_chain(url.cert_file, url.key_file)
    except (OSError, ssl.SSLError) as error:
        raise BusError(f"the files of TLS in the URL of the bus cannot be used: {error}") from None
    context.check_hostname = url.check_hostname
    return context


async def find_master(url: RedisUrl) -> tuple[str, int]:
    """Return where the sentinels say that the master is.

    Raises:
        BusDown: none of them knows it.
    """
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    options: dict[str, Any] = {
        "username": url.sentinel_username or None,
        "password": url.sentinel_password or None,
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),  # the others are asked instead
    }
    if url.tls:
        options |= {"ssl": True, "ssl_ca_certs": url.ca_file, "ssl_certfile": url.cert_file}
        options |= {"ssl_keyfile": url.key_file, "ssl_check_hostname": url.check_hostname}
    sentinels = Sentinel(list(url.addresses), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    try:
        host, port = await sentinels.discover_master(url.service)
    except (RedisError, OSError) as error:
        where = ", ".join(f"{host}:{port}" for host, port in url.addresses)
        kind = "" if "No master found" in str(error) else f" ({type(error).__name__})"
        raise BusDown(f"no sentinel of {where} knows a master of {url.service}{kind}") from None
    finally:
        for sentinel in sentinels.sentinels:
            await sentinel.aclose()
    return str(host), int(port)


def _worded(words: str) -> BusError:
    """Return what an error of the server means when a link is opened."""
    if is_down(words):
        return BusDown(f"Redis answers: {words}")
    if re.match(r"(WRONGPASS|NOAUTH|ERR AUTH|ERR invalid password|ERR Client sent AUTH)", words):
        return BusError(f"Redis refuses the user or the password in the URL of the bus: {words}")
    if words.startswith("NOPERM"):
        return BusError(f"Redis does not allow this user what a bus needs: {words}")
    return BusError(f"Redis answers: {words}")


def _ignore(reply: Any) -> None:
    """Take an answer that no call waits for."""
    if isinstance(reply, hiredis.ReplyError):
        logger.warning("Redis refuses a message: %s", reply)
