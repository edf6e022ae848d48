"""The bus of this event loop as plain functions: publish, subscribe, history, members, presence, close_members.

They act on the bus of the server that runs here; other programs have `tidegate.Bus`. What must not live here: what any
of them does (bus/bus.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..bus.sharing import current
from ..closing import Closing
from ..frames import CloseCode
from .connection import Connection

if TYPE_CHECKING:
    from ..bus.subscription import Subscription
    from ..channels import Message, Position

__all__ = ["close_members", "history", "leave_members", "members", "presence", "publish", "subscribe"]


async def publish(
    channel: str, message: Any, *, exclude: Any = None, key: str | None = None, json: bool = False, wait: float = 5.0
) -> Position | None:
    """Publish a message to all members of a channel, in all processes.

    With history it returns once the message is stored, without once it is on its way.

    Args:
        channel: its name.
        message: str for a text, bytes-like for a binary message; anything else becomes a text of JSON.
        exclude: a connection, or a subscription, that is not to get it.
        key: makes publishing again within 5 minutes have no effect: the position of the first is returned.
        json: whether a str or bytes are JSON, for members that take that apart.
        wait: seconds to wait for the engine; 0 does not wait for a place in its queue.

    Returns:
        The message's position, or None in a channel without history.

    Raises:
        InvalidChannel, MessageTooBig: it cannot be published.
        BusBusy: the queue was full for too long; nothing was published.
        BusDown: the engine is away; with `uncertain`, it may have stored the message.
        BusError: there is no bus here.
        TypeError, ValueError: for another wrong argument.
    """
    if isinstance(exclude, Connection):
        # One that has not joined gets nothing anyway.
        exclude = getattr(exclude, "member", None)
    return await current().publish(channel, message, exclude=exclude, key=key, json=json, wait=wait)


def subscribe(channel: str, since: Position | str | None = None, *, last: int = 0) -> Subscription:
    """Return an iterator over a channel's messages, to be entered with `async with`.

    In place of messages that are missing it gives a `Gap`; `message.gap` tells them apart.

    Args:
        channel: its name.
        since: the place after which messages were missed.
        last: how many of the last messages to begin with, if there is no such place or not all can be given.

    Raises:
        InvalidChannel: it is no channel.
        BusError: there is no bus here.
    """
    return current().subscribe(channel, since, last)


async def history(channel: str, *, limit: int = 50, before: Position | str | None = None) -> list[Message]:
    """Return what is stored of a channel, newest first.

    Args:
        channel: its name.
        limit: messages at most, up to 1,000; there may be fewer, of 1 MiB at most.
        before: the position of the last one of the page before; a page that is not known any more is empty.

    Raises:
        InvalidChannel, ValueError: for a wrong argument.
        BusDown: the engine is away.
        BusError: the channel has no history, or there is no bus here.
    """
    return await current().history(channel, limit=limit, before=before)


async def members(channel: str) -> int:
    """Return how many members a channel has in all processes; those of others as they were at most 10 s ago.

    Args:
        channel: its name.

    Raises:
        InvalidChannel: it is no channel.
        BusDown: the engine is away.
        BusError: there is no bus here.
    """
    return await current().members(channel)


async def presence(channel: str) -> dict[str, Any]:
    """Return who is in a channel with presence, of all processes: members' names, each with what is known of it.

    One whose last connection has just gone is among them for as long as the channel's `presence_grace` says, and one
    whose process was killed for 30 s at most.

    Args:
        channel: its name.

    Raises:
        InvalidChannel: it is no channel.
        TooManyMembers: there are more than 1,000, of which there is no list.
        BusDown: the engine is away.
        BusError: the channel has no presence, or there is no bus here.
    """
    return await current().presence(channel)


async def leave_members(channel: str, member: str | None = None) -> None:
    """Make members leave a channel, in all processes; their connections stay open, and may join it again.

    Args:
        channel: its name.
        member: by which name they joined, in a channel with presence; None: all members.

    Raises:
        InvalidChannel: it is no channel.
        TypeError, ValueError: `member` cannot be the name of a member.
        BusDown, BusBusy: the processes cannot be told.
        BusError: members have no names, since the channel has no presence; or there is no bus here.
    """
    await current().leave_members(channel, member)


async def close_members(channel: str, code: CloseCode | int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
    """Close the connections of all members of a channel, in all processes.

    Args:
        channel: its name.
        code: close code (RFC 6455 7.4).
        reason: text of at most 123 bytes in UTF-8.

    Raises:
        InvalidChannel: it is no channel.
        ProtocolError: the code or the reason may not be sent.
        BusDown, BusBusy: the processes cannot be told.
        BusError: there is no bus here.
    """
    Closing().send(code, reason)  # raises for what no close frame can carry
    await current().close_members(channel, code, reason)
