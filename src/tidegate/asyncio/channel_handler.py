"""`channel_handler()`, the ready handler for browsers, and `javascript()`, the script that speaks with it.

A client asks by the commands of bus/envelope.py; the application says by two hooks who may join and who may publish.
What must not live here: frames and their order (enveloped.py), what channels do (bus/).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..bus.envelope import (
    SUBPROTOCOL,
    Command,
    InvalidEnvelope,
    Join,
    Leave,
    PresenceOf,
    Publish,
    decode_command,
    error_frame,
    presence_frame,
    published_frame,
)
from ..bus.policies import check_key
from ..channels import Identity, name_fault
from ..datastructures import Headers
from ..exceptions import BusError, ConnectionClosed, InvalidChannel, NegotiationError, TooManyMembers
from ..frames import CloseCode
from ..http11 import Response
from ..protocol import State
from ..typing import Subprotocol
from .enveloped import EnvelopedMember

if TYPE_CHECKING:
    from .server import ServerConnection

__all__ = ["ChannelHandler", "channel_handler", "javascript"]

HOOK_TIMEOUT: Final = 10.0
"""Seconds for a hook; then it is no."""

COMPLAIN_EVERY: Final = 1.0
"""Seconds between two lines of one connection about its hooks in the log."""

DENIED: Final = "denied"

CLIENT_KEYS: Final = "v1:"
"""What keys of clients begin with on the bus: none of them is that of a publication by the application."""

MayJoin = Callable[[Any, str, "str | None"], "Awaitable[bool | Identity] | bool | Identity"]
MayPublish = Callable[[Any, str, Any], Any]
Then = Callable[[Any], Awaitable[None]]


def channel_handler(
    *, may_join: MayJoin | None = None, may_publish: MayPublish | None = None, then: Then | None = None
) -> ChannelHandler:
    """Return a handler for clients that use channels by the subprotocol `tidegate.v1`, such as `tidegate.js`::

        handler = channel_handler(may_join=lambda websocket, channel, since: channel.startswith("chat:"))
        serve(handler, ..., select_subprotocol=handler.select_subprotocol, channels={"chat:": Channel(history=200)})

    The hooks are functions or coroutine functions. One that is missing, fails or takes longer than 10 s denies.

    Args:
        may_join: `f(websocket, channel, since)`: True lets a client join a channel; an `Identity` says as whom, for
            channels with presence.
        may_publish: `f(websocket, channel, data)`: True lets a client publish; a str, bytes, dict or list is published
            instead. `data` is what the client's JSON says, or bytes.
        then: handler of connections without the subprotocol; without it they are rejected.

    Raises:
        TypeError: an argument is no function.
    """
    return ChannelHandler(may_join, may_publish, then)


class ChannelHandler:
    """What `channel_handler()` returns: a handler, with the function that chooses its subprotocol.

    Parameters:
        may_join, may_publish, then: as for `channel_handler()`.

    Raises:
        TypeError: an argument is no function.
    """

    def __init__(self, may_join: MayJoin | None, may_publish: MayPublish | None, then: Then | None) -> None:
        for name, hook in (("may_join", may_join), ("may_publish", may_publish), ("then", then)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function or None, not {hook!r}")
        self._may_join = may_join
        self._may_publish = may_publish
        self._then = then

    def select_subprotocol(self, connection: Any, subprotocols: Sequence[str]) -> Subprotocol | None:
        """Choose `tidegate.v1` if the client offers it: for `select_subprotocol` of `App` and `serve()`.

        Args:
            connection: is not looked at.
            subprotocols: that the client offers.

        Raises:
            NegotiationError: it does not, and there is no `then`.
        """
        if SUBPROTOCOL in subprotocols:
            return Subprotocol(SUBPROTOCOL)
        if self._then is None:
            raise NegotiationError(f"missing subprotocol; expected {SUBPROTOCOL}")
        return None

    async def __call__(self, websocket: ServerConnection) -> None:
        """Do what a client asks, one command after another, until the connection closes."""
        if websocket.subprotocol == SUBPROTOCOL:
            member = websocket._as_member()
            assert isinstance(member, EnvelopedMember)
            await _Conversation(websocket, member, self._may_join, self._may_publish).run()
        elif self._then is not None:
            await self._then(websocket)
        else:
            await websocket.close(CloseCode.POLICY_VIOLATION, f"missing subprotocol; expected {SUBPROTOCOL}")


class _Conversation:
    """One client's commands, and the answers."""

    def __init__(
        self,
        websocket: ServerConnection,
        member: EnvelopedMember,
        may_join: MayJoin | None,
        may_publish: MayPublish | None,
    ) -> None:
        self._websocket = websocket
        self._bus = member.bus
        self._member = member
        self._may_join = may_join
        self._may_publish = may_publish
        self._rate, self._burst = member.bus.limits.commands
        self._tokens = float(self._burst)
        self._updated = websocket.loop.time()
        self._complained: dict[str, float] = {}

    async def run(self) -> None:
        """Read commands and do them."""
        websocket = self._websocket
        try:
            while True:
                message = await websocket.recv()
                await self._pace()
                await self._obey(decode_command(message, self._bus.message_limit))
                # Who does not read answers is not read from.
                await websocket._drain()
        except InvalidEnvelope as exc:
            await websocket.close(exc.code, exc.reason)
        except ConnectionClosed:
            pass

    async def _pace(self) -> None:
        """Wait until the client may have its next command done: one that sends more is read more slowly."""
        now = self._websocket.loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate) - 1
        self._updated = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)

    async def _obey(self, command: Command) -> None:
        match command:
            case Join():
                await self._join(command)
            case Leave():
                for channel in command.channels:
                    self._member.drop(channel)
                if command.id is not None:
                    self._member.send_frame(published_frame(command.id, None))
            case Publish():
                await self._publish(command)
            case PresenceOf():
                await self._present(command)
            case _:
                self._fail(command.id, "unknown command")

    def _fail(self, id: int | None, error: BusError | str) -> None:
        self._member.send_frame(error_frame(id, error))

    # Joins.

    async def _join(self, command: Join) -> None:
        """Join those of the channels that the application lets the client join."""
        refused: dict[str, Any] = {}
        for channel in command.channels:
            fault = name_fault(channel)
            if fault is not None:
                refused[channel] = InvalidChannel(channel, fault)
        asked = [channel for channel in command.channels if channel not in refused]
        identities: dict[str, Identity] = {}
        for channel, may in zip(asked, await self._ask_all(asked, command.channels), strict=True):
            if isinstance(may, Identity):
                identities[channel] = may
            elif not may:
                refused[channel] = DENIED
                self._member.drop(channel)  # it may have been allowed before
        allowed = {channel: since for channel, since in command.channels.items() if channel not in refused}
        if self._websocket.state is State.OPEN:
            # Waiting keeps the order: what a client publishes after it has joined gets to it, too.
            told = self._websocket.loop.create_future()
            self._member.start_join(allowed, command.last, command.id, refused, told, identities)
            await told

    async def _ask_all(self, channels: Sequence[str], since: dict[str, str | None]) -> list[bool | Identity]:
        return await asyncio.gather(*(self._ask_join(channel, since[channel]) for channel in channels))

    async def _ask_join(self, channel: str, since: str | None) -> bool | Identity:
        answer = await self._ask("may_join", self._may_join, channel, since)
        if isinstance(answer, Identity):
            return answer
        if not isinstance(answer, bool | None):
            self._complain("may_join", f"must return a bool or an Identity, not {answer!r:.100}")
        return answer is True

    async def _ask(self, name: str, hook: Callable[..., Any] | None, channel: str, argument: Any) -> Any:
        """Return what a hook answers; None if there is none, or if it fails."""
        if hook is None:
            return None
        try:
            answer = hook(self._websocket, channel, argument)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(HOOK_TIMEOUT):
                    answer = await answer
        except Exception:
            self._complain(name, "failed, which denies", exc_info=True)
            return None
        return answer

    def _complain(self, hook: str, what: str, exc_info: bool = False) -> None:
        """Log what is wrong with a hook: once a second, however often the client has it called."""
        now = self._websocket.loop.time()
        if now - self._complained.get(hook, -COMPLAIN_EVERY) >= COMPLAIN_EVERY:
            self._complained[hook] = now
            self._websocket.logger.error("%s %s", hook, what, exc_info=exc_info)

    # Publications.

    async def _publish(self, command: Publish) -> None:
        """Publish what the application lets the client publish, and answer."""
        fault = name_fault(command.channel)
        if fault is not None:
            self._fail(command.id, InvalidChannel(command.channel, fault))
            return
        key, data = _key_and_data(command)
        answer = await self._ask("may_publish", self._may_publish, command.channel, data)
        if answer is True:
            answer = command.data
        elif isinstance(answer, str | bytes | dict | list):
            command = msgspec.structs.replace(command, json=False)
        else:
            if not isinstance(answer, bool | None):
                self._complain("may_publish", f"must return a bool, or what to publish, not {answer!r:.100}")
            self._fail(command.id, DENIED)
            return
        try:
            position = await self._bus.publish(command.channel, answer, key=key, json=command.json)
        except BusError as exc:
            self._fail(command.id, exc)
            return
        except (TypeError, ValueError):
            self._complain("may_publish", "returned what cannot be published, which denies", exc_info=True)
            self._fail(command.id, DENIED)
            return
        if command.id is not None:
            self._member.send_frame(published_frame(command.id, position))

    # Presence.

    async def _present(self, command: PresenceOf) -> None:
        """Tell a member of a channel how many there are, and where members are listed, who."""
        if command.channel not in self._member.channels:
            self._fail(command.id, DENIED)
            return
        names = None
        try:
            count = await self._bus.members(command.channel)
            if self._bus.policy_of(command.channel).presence:
                with contextlib.suppress(TooManyMembers):
                    names = await self._bus.names(command.channel)
        except BusError as exc:
            self._fail(command.id, exc)
        else:
            # At once: what is told next is told of these.
            self._member.send_frame(presence_frame(command.id, count, names))


def _key_and_data(command: Publish) -> tuple[str | None, Any]:
    """Return the key of a publication on the bus, and its data as a hook is given them.

    Raises:
        InvalidEnvelope: one of them is not possible.
    """
    key = None if command.key is None else CLIENT_KEYS + command.key
    try:
        check_key(key)
    except ValueError:
        raise InvalidEnvelope(CloseCode.POLICY_VIOLATION, "the key is too long") from None
    if not command.json:
        return key, command.data
    try:
        return key, msgspec.json.decode(command.data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise InvalidEnvelope(CloseCode.INVALID_DATA, "the data isn't JSON") from None


# The script.


def javascript() -> Response:
    """Return the response with `tidegate.js`, an ES module.

    It is for `process_request`, at the path that pages import::

        def process_request(connection, request):
            if request.path == "/tidegate.js":
                return tidegate.javascript()
    """
    body = _script()
    headers = Headers(
        {
            "Content-Type": "text/javascript; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "max-age=300",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
    )
    return Response(200, "OK", headers, body)


@functools.cache
def _script() -> bytes:
    return files("tidegate.asyncio").joinpath("tidegate.js").read_bytes()
