"""What a read of a channel at NATS gives: messages that JetStream stores, as far as the policy keeps them.

    read_after, read_newest     what a `read` returns
    tops                        positions of channels, and how far it is known that they are still those

Sequences are those of a stream, in which all channels of a policy are: a place may be one at which the channel has no
message, and the next message of the channel is found by asking for it. So a range is read by several who ask one after
the other, each for its part. What must not live here: what a stream is, subscriptions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..channels import Channel, Message, Position
from .base import SLICE_BYTES, SLICE_MESSAGES, Slice
from .nats_streams import Api, Stored, Stream
from .nats_words import unpack_head

__all__ = ["Place", "read_after", "read_newest", "tops"]

READERS: Final = 16
"""Who asks at once, for one read."""

WIDTH: Final = 256
"""Sequences of one range, at most as many messages."""


class Place(NamedTuple):
    """How far a channel has come.

    Attributes:
        told: its offset, as it was said first: what is between a message and this is nothing.
        verified: the sequence up to which it is known that nothing came after that.
    """

    told: int
    verified: int


async def read_after(
    stream: Stream, api: Api, channel: str, subject: str, after: Position, limit: int, place: Place | None
) -> Slice:
    """Return the oldest messages after a place.

    Args:
        stream: the channel's.
        api: asks it.
        channel: its name.
        subject: its own one in the stream.
        after: the place.
        limit: messages at most.
        place: what is known of the channel.
    """
    last = await stream.last(api, subject)
    end = last.sequence if last is not None else 0
    told = place.told if place is not None else 0
    if after.epoch != stream.epoch:
        return Slice([], Position(stream.epoch, max(end, told) or (await stream.look(api)).last), False)
    if last is not None and after.offset == end:
        return Slice([], Position(stream.epoch, max(end, told)), True)
    if after.offset >= end:
        nothing = await _read_nothing(stream, api, subject, after, end, place)
        if nothing is not None:
            return nothing
        return await read_after(stream, api, channel, subject, after, limit, place)
    limit = max(0, min(limit, SLICE_MESSAGES))
    first = await stream.next(api, subject, after.offset)
    here = first is not None and first.sequence == after.offset
    newer, at_end = await _collect(
        stream, api, subject, after.offset + 1, end, limit if here else limit + 1, SLICE_BYTES
    )
    kept = _keep(newer, stream.policy, all_of_them=at_end)
    if not here and not at_end and len(kept) == len(newer) and await _is_one_too_many(stream, api, subject, newer):
        kept = kept[1:]
    complete = len(kept) == len(newer) and (
        here
        or (bool(newer) and newer[0].sequence == after.offset + 1)
        or await _follows(stream, api, subject, after.offset, len(newer) if at_end else None)
    )
    kept = kept[:limit]
    top = Position(stream.epoch, max(end, told))
    return Slice(_messages(kept, channel, stream.epoch, after.offset if complete else None), top, complete)


async def _is_one_too_many(stream: Stream, api: Api, subject: str, found: Sequence[Stored]) -> bool:
    """Return whether the first message is the one that is stored beyond the policy's number."""
    info = await stream.look(api, subject)
    if info.subjects.get(subject, 0) <= stream.policy.history:
        return False
    first = await stream.next(api, subject, 1)
    return first is not None and bool(found) and first.sequence == found[0].sequence


async def _read_nothing(
    stream: Stream, api: Api, subject: str, after: Position, end: int, place: Place | None
) -> Slice | None:
    """Return what follows a place after which nothing is stored; None if something is by now."""
    info = await stream.look(api)
    if after.offset > info.last:
        return Slice([], Position(stream.epoch, max(end, place.told if place is not None else 0) or info.last), False)
    last = await stream.last(api, subject)
    if last is not None and last.sequence > after.offset:
        return None
    # Nothing is between the place and the end of the stream, unless it was too old. It was not if something is stored
    # that is not after the place, or if this was looked after before.
    known = after.offset
    if place is not None and known >= place.told:
        known = max(known, place.verified)
    complete = last is not None or stream.is_whole(info, known)
    return Slice([], Position(stream.epoch, info.last), complete)


async def _follows(stream: Stream, api: Api, subject: str, place: int, count: int | None) -> bool:
    """Return whether nothing after a place, at which nothing of the channel is stored, has been let go of.

    Args:
        stream: the channel's.
        api: asks it.
        subject: the channel's own one.
        place: the offset.
        count: messages that are stored after it; None if it is not known.
    """
    first = await stream.next(api, subject, 1)
    if first is not None and first.sequence <= place:
        return True  # both limits let go of the oldest first
    info = await stream.look(api, None if count is not None else subject)
    if count is None:
        count = info.subjects.get(subject, 0)
    return info.has_all(count, place) and stream.is_whole(info, place)


async def read_newest(
    stream: Stream, api: Api, channel: str, subject: str, limit: int, before: Position | None, told: int
) -> Slice:
    """Return the newest messages, or those before a place.

    Args:
        stream, api, channel, subject, limit: as for `read_after`.
        before: the place.
        told: how far the channel has come, as far as that is known.
    """
    last = await stream.last(api, subject)
    if last is None:
        top = Position(stream.epoch, told or (await stream.look(api)).last)
        return Slice([], top, before is None or before.epoch == stream.epoch)
    top = Position(stream.epoch, last.sequence)
    if before is not None and before.epoch != stream.epoch:
        return Slice([], top, False)
    first = await stream.next(api, subject, 1)
    end = last.sequence if before is None else min(last.sequence, before.offset - 1)
    limit = max(0, min(limit, SLICE_MESSAGES))
    # What is newer than the page counts, too: it is what the policy keeps first.
    newer = [] if before is None else (await _collect(stream, api, subject, before.offset, last.sequence))[0]
    found: list[Stored] = []
    begin, span = end + 1, max(1, limit)
    while first is not None and begin > first.sequence and len(found) < limit and _size(found) <= SLICE_BYTES:
        start = max(first.sequence, begin - span)
        older, _ = await _collect(stream, api, subject, start, begin - 1)
        found, begin, span = older + found, start, span * 4
    kept = _keep(found + newer, stream.policy, all_of_them=True)
    kept = kept[: max(0, len(kept) - len(newer))] if newer else kept
    page: list[Stored] = []
    size = 0
    for one in reversed(kept):
        size += len(one.payload)
        if len(page) >= limit or (page and size > SLICE_BYTES):
            break
        page.insert(0, one)
    at_start = first is None or begin <= first.sequence
    return Slice(_messages(page, channel, stream.epoch, None), top, at_start and len(page) == len(found))


def _size(found: Sequence[Stored]) -> int:
    return sum(len(one.payload) for one in found)


async def _collect(
    stream: Stream, api: Api, subject: str, start: int, end: int, limit: int = 2**62, size: int = 2**62
) -> tuple[list[Stored], bool]:
    """Return the messages of a range in order, and whether that is all of them.

    Args:
        stream, api, subject: what is asked.
        start, end: the first and the last sequence.
        limit: messages at most.
        size: bytes of payload after which none is added; one is, whatever its size.
    """
    found: list[Stored] = []
    one = await stream.next(api, subject, start) if start <= end else None
    width = READERS
    while one is not None and one.sequence <= end:
        found.append(one)
        begin, stop = one.sequence + 1, min(one.sequence + 1 + width, end + 1)
        step = -(-(stop - begin) // READERS) or 1
        parts = [(part, min(part + step, stop)) for part in range(begin, stop, step)]
        walked = await asyncio.gather(*(_walk(stream, api, subject, *part) for part in parts))
        for part, _ in walked:
            found += part
        one = walked[-1][1] if walked else await stream.next(api, subject, stop)
        total = _size(found)
        if len(found) >= limit or total > size:
            break
        # More at once, unless messages are large.
        width = max(READERS, min(WIDTH, width * 4, SLICE_BYTES * len(found) // (total + 1)))
    some: list[Stored] = []
    total = 0
    for each in found:
        total += len(each.payload)
        if len(some) >= limit or (some and total > size):
            return some, False
        some.append(each)
    return some, one is None or one.sequence > end


async def _walk(stream: Stream, api: Api, subject: str, begin: int, stop: int) -> tuple[list[Stored], Stored | None]:
    """Return the messages from one sequence to before another, and the one after those."""
    found: list[Stored] = []
    while True:
        one = await stream.next(api, subject, begin)
        if one is None or one.sequence >= stop:
            return found, one
        found.append(one)
        begin = one.sequence + 1
        if begin >= stop:
            return found, await stream.next(api, subject, begin)


def _keep(found: Sequence[Stored], policy: Channel, all_of_them: bool) -> Sequence[Stored]:
    """Return those that the policy keeps.

    Args:
        found: messages in order.
        policy: the channel's.
        all_of_them: whether the last one is the channel's last; else only those that are too old can be told.
    """
    oldest = time.time() - policy.keep
    start = 0
    while start < len(found) and found[start].time <= oldest:
        start += 1
    if all_of_them:
        start = max(start, len(found) - policy.history)
        total, begin = 0, len(found)
        while begin > start and (begin == len(found) or total + len(found[begin - 1].payload) <= policy.history_bytes):
            begin -= 1
            total += len(found[begin].payload)
        start = begin
    return found[start:]


def _messages(found: Sequence[Stored], channel: str, epoch: str, before: int | None) -> list[Message]:
    """Return the messages as they are given to members.

    Args:
        found: as they are stored.
        channel: its name.
        epoch: of the stream.
        before: the place after which nothing is missing before the first one; None if that is not known.
    """
    messages = []
    for one in found:
        head = unpack_head(one.headers)
        previous = one.sequence - 1 if before is None else before
        messages.append(
            Message(
                channel,
                one.payload,
                head.text,
                Position(epoch, one.sequence),
                head.sender,
                head.time,
                head.json,
                head.exclude,
                previous,
            )
        )
        before = one.sequence
    return messages


async def tops(stream: Stream, api: Api, subjects: Sequence[str], places: Sequence[Place | None]) -> list[Place]:
    """Return how far channels have come.

    Args:
        stream: that of all of them.
        api: asks it.
        subjects: their own ones.
        places: what is known of them.
    """
    before = await stream.look(api)
    lasts = await stream.lasts(api, list(subjects))
    after = await stream.look(api) if None in lasts else before
    found = []
    for last, place in zip(lasts, places, strict=True):
        if last is not None:
            told = last.sequence if place is None else max(last.sequence, place.told)
        elif place is None or not stream.is_whole(after, max(place.told, place.verified)):
            told = before.last  # nothing is stored; what was is too old, if anything was
        else:
            told = place.told
        found.append(Place(told, max(before.last, told)))
    return found
