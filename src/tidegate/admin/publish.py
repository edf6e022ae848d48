"""POST /publish: messages to channels by HTTP, for who has the token.

    {"channel": "chat:7", "data": {"text": "hello"}, "key": "k1"}      one message, as JSON; or a list of them
    POST /publish?channel=chat:7&key=k1                                one message: the body, as it is

The bus is that of the daemon, to which this process connects as any other process does. What must not live here: paths
(routes.py), who may ask (authorization.py), what publishing is, and by what it goes (bus/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from ..asyncio.request_body import BodyError
from ..bus.outside import Connection
from ..channels import MESSAGE_LIMIT
from ..exceptions import BusBusy, BusDown, BusError, InvalidChannel, MessageTooBig

if TYPE_CHECKING:
    from ..asyncio.request_body import BodyConnection
    from ..bus.bus import Bus
    from ..channels import Position
    from ..http11 import Request

__all__ = ["Answered", "Publisher"]

BODY: Final = MESSAGE_LIMIT + 2**16
"""Bytes of a body: one message of the highest limit, and what is around it."""

BATCH: Final = 100
"""Messages of one request."""

AT_ONCE: Final = 8
"""Requests whose bodies are in memory."""

BODY_SECONDS: Final = 5.0
"""For a body to come."""

BUS_SECONDS: Final = 5.0
"""For the bus to take a message, and for a hub that restarts."""

MARGIN: Final = 2.0
"""Seconds beyond that for the answer."""

Answered = tuple[HTTPStatus, bytes, float | None]
"""Status, body, and seconds after which it makes sense to try again."""

Content = tuple[str, str | bytes, bool, str | None]
"""Channel, message, whether it is JSON, key."""


class Published(msgspec.Struct):
    """A message that was published.

    Attributes:
        position: its place; None in a channel without history.
    """

    position: str | None


class Failed(msgspec.Struct, omit_defaults=True):
    """A message that was not published.

    Attributes:
        error: why not.
        status: the status of the answer, were it the only message.
        uncertain: whether it may be stored all the same; trying again with the same key is safe.
    """

    error: str
    status: int
    uncertain: bool = False


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is to be published.

    Attributes:
        channel: where to.
        data: a string is a text; anything else is JSON, for members that take that apart.
        key: makes publishing again within 5 minutes have no effect.
    """

    channel: str
    data: msgspec.Raw
    key: str | None = None


class InvalidOrder(ValueError):
    """A request that says nothing that could be published."""


class Publisher:
    """Answers POST /publish.

    Parameters:
        url: of the bus; None: the daemon has no socket for other processes.

    Attributes:
        connection: to the bus, which is to be told what the application declares.
    """

    def __init__(self, url: str | None) -> None:
        self.connection = Connection(url, BUS_SECONDS)
        self._requests = 0

    async def answer(self, connection: BodyConnection, request: Request) -> Answered:
        """Publish what a request says, and return the answer to it."""
        if self._requests >= AT_ONCE:
            return _failure(HTTPStatus.SERVICE_UNAVAILABLE, f"{AT_ONCE} requests are being answered", 1.0)
        self._requests += 1
        try:
            body = await connection.read_body(BODY, BODY_SECONDS)
            contents, alone = _contents(request, body)
            del body
            connection.give_time(2 * BUS_SECONDS + MARGIN)
            return await self._publish(contents, alone)
        except BodyError as error:
            return _failure(error.status, error.reason)
        except InvalidOrder as error:
            return _failure(HTTPStatus.BAD_REQUEST, str(error))
        finally:
            self._requests -= 1

    async def _publish(self, contents: Sequence[Content], alone: bool) -> Answered:
        try:
            bus = await self.connection.bus()
        except BusError as error:
            return _failure(HTTPStatus.SERVICE_UNAVAILABLE, str(error), getattr(error, "retry_after", 1.0))
        results = await asyncio.gather(*(_publish(bus, *content) for content in contents))
        published = any(isinstance(result, Published) for result in results)
        failure = next((result for result in results if isinstance(result, Failed)), None)
        status = HTTPStatus.OK if failure is None or published else HTTPStatus(failure.status)
        retry = 1.0 if status is HTTPStatus.SERVICE_UNAVAILABLE else None
        return status, msgspec.json.encode(results[0] if alone else results) + b"\n", retry


async def _publish(bus: Bus, channel: str, message: str | bytes, json: bool, key: str | None) -> Published | Failed:
    """Publish a message, and return what became of it."""
    try:
        position: Position | None = await bus.publish(channel, message, json=json, key=key, wait=BUS_SECONDS)
    except (BusDown, BusBusy) as error:
        return Failed(str(error), HTTPStatus.SERVICE_UNAVAILABLE, getattr(error, "uncertain", False))
    except MessageTooBig as error:
        return Failed(str(error), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except (InvalidChannel, ValueError) as error:
        return Failed(str(error), HTTPStatus.BAD_REQUEST)
    except BusError as error:
        return Failed(str(error), HTTPStatus.CONFLICT)
    return Published(None if position is None else str(position))


def _failure(status: HTTPStatus, error: str, retry_after: float | None = None) -> Answered:
    return status, msgspec.json.encode(Failed(error, status)) + b"\n", retry_after


# What a request says.


def _contents(request: Request, body: bytes) -> tuple[list[Content], bool]:
    """Return what is to be published, and whether it is one message, not a list.

    Raises:
        InvalidOrder: it says nothing that could be.
    """
    query = request.path.partition("?")[2]
    if query:
        return [_raw(_parameters(query), request, body)], True
    try:
        found: Any = msgspec.json.decode(body, type=Order | list[Order])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidOrder(f"{error}: the body must be {_EXAMPLE}, or a list of such objects") from None
    orders: list[Order] = found if isinstance(found, list) else [found]
    if not 1 <= len(orders) <= BATCH:
        raise InvalidOrder(f"a list must have 1 to {BATCH} messages, not {len(orders)}")
    return [_content(order) for order in orders], found is not orders


_EXAMPLE = '{"channel": "chat:7", "data": {"text": "hello"}}'


def _content(order: Order) -> Content:
    data = bytes(order.data)
    if data.startswith(b'"'):
        return order.channel, msgspec.json.decode(data, type=str), False, order.key
    return order.channel, data, True, order.key


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError as error:
        raise InvalidOrder(f"the query of the path cannot be read: {error}") from None
    found = dict(pairs)
    unknown = found.keys() - {"channel", "key"}
    if unknown or "channel" not in found or len(found) < len(pairs):
        raise InvalidOrder("the query of the path must be channel=NAME, and perhaps key=KEY, each once")
    return found


def _raw(parameters: dict[str, str], request: Request, body: bytes) -> Content:
    """Return the body as a message: by its type bytes, JSON, or a text."""
    kind = ",".join(request.headers.get_all("Content-Type")).partition(";")[0].strip().lower()
    channel, key = parameters["channel"], parameters.get("key")
    if kind == "application/octet-stream":
        return channel, body, False, key
    if kind == "application/json":
        return channel, body, True, key
    try:
        return channel, body.decode(), False, key
    except UnicodeDecodeError:
        raise InvalidOrder("the body isn't text in UTF-8: send Content-Type: application/octet-stream") from None
