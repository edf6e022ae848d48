"""A server's channel and a client's, back to back, with compression as any offer and any answer agreed on it.

Nothing here is a model: whatever one side sends is what the other receives, in order. What must not live here: input
that no peer of ours would send (test_receiving).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.recorder import finish
from tests.fuzz.model import Deflating
from tests.fuzz.subject import Line, Subject
from tests.fuzz.wires import PAYLOADS, PLACES, TEXTS, cut, examples
from tidegate.asyncio.connection import Connection
from tidegate.exceptions import NegotiationError
from tidegate.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

SERVER, CLIENT = 0, 1
BITS = st.integers(9, 15)

OFFERS = st.builds(
    ClientPerMessageDeflateFactory,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.none() | BITS,
    client_max_window_bits=st.none() | st.just(True) | BITS,
    compress_settings=st.none() | st.sampled_from([{"memLevel": 1}, {"level": 0}, {"level": 9}]),
)
ACCEPTS = st.builds(
    ServerPerMessageDeflateFactory,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.none() | BITS,
    client_max_window_bits=st.none() | BITS,
    compress_settings=st.none() | st.sampled_from([{"memLevel": 5}, {"level": 0}, {"level": 9}]),
)
# Repeated, so that there is something to refer back to, within a message and from one to the next.
MESSAGES = st.one_of(
    st.builds(lambda text, times: text * times, TEXTS, st.sampled_from([1, 10, 400])),
    st.builds(lambda data, times: data * times, PAYLOADS, st.sampled_from([1, 10, 400])),
    st.lists(TEXTS, min_size=1, max_size=5),
    st.lists(st.binary(max_size=50), min_size=1, max_size=5),
)


def agree(
    offer: ClientPerMessageDeflateFactory, accept: ServerPerMessageDeflateFactory
) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    """The extensions of both sides, server first."""
    answer, of_server = accept.process_request_params(list(offer.get_request_params()), [])
    return of_server, offer.process_response_params(answer, [])


class Pair:
    """Both ends of a connection."""

    def __init__(self, extensions: tuple[PerMessageDeflate, PerMessageDeflate]) -> None:
        self.ends = [Subject(client=False), Subject(client=True)]
        for end, extension in zip(self.ends, extensions, strict=True):
            end.connection._adopt([extension])

    def connection(self, side: int) -> Connection:
        return self.ends[side].connection

    def line(self, side: int) -> Line:
        return self.ends[side].line

    def carry(self, places: list[int]) -> None:
        """Bring to each side what the other wrote, until there is no more."""
        while any(self.line(side).writes for side in (SERVER, CLIENT)):
            for side in (SERVER, CLIENT):
                written = self.line(side).written
                self.line(side).writes.clear()
                for chunk in cut(written, places):
                    self.connection(1 - side).data_received(chunk)


def whole(message: str | bytes | list[str] | list[bytes]) -> str | bytes:
    return message if isinstance(message, (str, bytes)) else type(message[0])().join(message)  # type: ignore[arg-type]


@examples(150)
@given(OFFERS, ACCEPTS, st.data())
def test_what_is_sent_is_received(
    offer: ClientPerMessageDeflateFactory, accept: ServerPerMessageDeflateFactory, data: st.DataObject
) -> None:
    pair = Pair(agree(offer, accept))
    expected: tuple[list[str | bytes], list[str | bytes]] = ([], [])
    for _ in range(data.draw(st.integers(1, 10))):
        side = data.draw(st.sampled_from([SERVER, CLIENT]))
        action = data.draw(st.integers(0, 5))
        if action == 0:
            pair.connection(side).extensions[0].deflate.rest()
        elif action == 1:
            finish(pair.connection(side).pong(b"I am here"))
        else:
            message = data.draw(MESSAGES)
            finish(pair.connection(side).send(message))
            expected[1 - side].append(whole(message))
        if data.draw(st.booleans()):
            pair.carry(data.draw(PLACES))
    pair.carry([])
    for side in (SERVER, CLIENT):
        assert [finish(pair.connection(side).recv()) for _ in expected[side]] == expected[side]
        assert pair.connection(side).close_sent is None
    for end in pair.ends:
        end.lose()


@examples(100)
@given(OFFERS, ACCEPTS)
def test_both_sides_agree_on_the_same(
    offer: ClientPerMessageDeflateFactory, accept: ServerPerMessageDeflateFactory
) -> None:
    of_server, of_client = agree(offer, accept)
    for a, b in ((of_server, of_client), (of_client, of_server)):
        assert a.local_no_context_takeover >= b.remote_no_context_takeover
        assert a.local_max_window_bits <= b.remote_max_window_bits
    assert not offer.server_no_context_takeover or of_server.local_no_context_takeover
    assert not accept.client_no_context_takeover or of_client.local_no_context_takeover
    if offer.server_max_window_bits is not None:
        assert of_server.local_max_window_bits <= offer.server_max_window_bits


NAMES = st.sampled_from([*ServerPerMessageDeflateFactory().__dict__, "x", "", "server_max_window_bits"])
VALUES = st.none() | st.sampled_from(["", "7", "8", "9", "15", "16", "09", " 9", "9 ", "1e1", "-9", "\u0669", "99" * 9])


@examples(300)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), OFFERS, ACCEPTS)
def test_any_parameters(
    params: list[tuple[str, str | None]],
    offer: ClientPerMessageDeflateFactory,
    accept: ServerPerMessageDeflateFactory,
) -> None:
    """An offer or an answer is refused by the one exception, or makes an extension that works."""
    made = []
    try:
        made.append(accept.process_request_params(params, [])[1])
    except NegotiationError:
        pass
    try:
        made.append(offer.process_response_params(params, []))
    except NegotiationError:
        pass
    for extension in made:
        subject = Subject()
        subject.connection._adopt([extension])
        finish(subject.connection.send("message" * 10))
        subject.peer.deflating = Deflating(not extension.local_no_context_takeover, extension.local_max_window_bits)
        subject.sent.append("message" * 10)
        subject.check()
        subject.lose()


@pytest.mark.parametrize("server_bits", range(9, 16))
@pytest.mark.parametrize("client_bits", range(9, 16))
def test_every_pair_of_windows(server_bits: int, client_bits: int) -> None:
    """A reference as far back as the window goes, and a peer whose window is no larger can follow it."""
    offer = ClientPerMessageDeflateFactory(client_max_window_bits=client_bits, server_max_window_bits=server_bits)
    pair = Pair(agree(offer, ServerPerMessageDeflateFactory()))
    message = bytes(range(256)) * 300
    for side in (SERVER, CLIENT):
        for _ in range(3):
            finish(pair.connection(side).send(message))
        pair.carry([])
        assert [finish(pair.connection(1 - side).recv()) for _ in range(3)] == [message] * 3
    for end in pair.ends:
        end.lose()
