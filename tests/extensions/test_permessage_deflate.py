"""What is agreed on about compression, and frames through it: each compared with what the `websockets` library does.

What must not live here: compression in itself (tests/core/test_deflate.py).
"""

from __future__ import annotations

import itertools
import pickle
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import websockets.exceptions
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import permessage_deflate as model
from websockets.frames import Frame as ModelFrame
from websockets.frames import Opcode as ModelOpcode

from tidegate import exceptions
from tidegate.exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from tidegate.extensions import permessage_deflate as ours
from tidegate.extensions.base import Extension
from tidegate.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
    enable_client_permessage_deflate,
    enable_server_permessage_deflate,
)
from tidegate.frames import Frame, Opcode
from tidegate.headers import parse_extension
from tidegate.http11 import parse_request
from tidegate.server import HandshakeOptions, accept

Params = list[tuple[str, str | None]]

FIELDS = (
    "remote_no_context_takeover",
    "local_no_context_takeover",
    "remote_max_window_bits",
    "local_max_window_bits",
    "compress_settings",
)
FACTORY_FIELDS = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
    "compress_settings",
)

FLAGS: tuple[Params, ...] = (
    [],
    [("server_no_context_takeover", None)],
    [("client_no_context_takeover", None)],
    [("client_no_context_takeover", None), ("server_no_context_takeover", None)],
)
# Few enough for all combinations: nothing, the least, two in the middle, the most.
BITS: tuple[str | None, ...] = (None, "8", "10", "12", "15")
WRONG: tuple[Params, ...] = (
    [("no_such_parameter", None)],
    [("server_no_context_takeover", "true")],
    [("client_no_context_takeover", "")],
    [("server_max_window_bits", None)],
    [("client_max_window_bits", "")],
    *(
        [(name, bits)]
        for name in ("server_max_window_bits", "client_max_window_bits")
        for bits in ("7", "16", "08", "x")
    ),
    *([parameter, parameter] for parameter in FLAGS[3]),
    [("server_max_window_bits", "10"), ("server_max_window_bits", "11")],
    [("client_max_window_bits", None), ("client_max_window_bits", "10")],
)


def fields_of(extension: Any) -> list[Any]:
    return [getattr(extension, name) for name in FIELDS]


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    """What comes of negotiating: the answer and what is known of the extension, or the exception, by its name."""
    try:
        result = call()
    except (exceptions.NegotiationError, websockets.exceptions.NegotiationError) as exc:
        return type(exc).__name__, str(exc), vars(exc)
    answer, extension = result if isinstance(result, tuple) else (None, result)
    return answer, fields_of(extension), repr(extension)


def same(module: Any, factory: str, method: str, config: Sequence[Any], params: Params) -> tuple[Any, ...]:
    made = getattr(module, factory)(*config)
    return outcome(lambda: getattr(made, method)(params, []))


def combinations(client_offers: bool) -> list[Params]:
    """Parameters that may be read; in an offer one of them may be without a value."""
    found = []
    for flags, server, client in itertools.product(FLAGS, BITS, (*BITS, True)):
        params = list(flags)
        if server is not None:
            params.append(("server_max_window_bits", server))
        if client is True and client_offers:
            params.append(("client_max_window_bits", None))
        elif client is not True and client is not None:
            params.append(("client_max_window_bits", client))
        found.append(params)
    return found


# Negotiation


def test_the_server_answers_every_offer_as_websockets_does() -> None:
    configs = [
        (*flags, server, client, settings, required)
        for flags in itertools.product([False, True], repeat=2)
        for server in (None, 9, 12, 15)
        for client in (None, 8, 12, 15)
        for settings, required in [(None, False), ({"memLevel": 5}, client is not None)]
    ]
    for config, params in itertools.product(configs, [*combinations(True), *WRONG]):
        arguments = ("ServerPerMessageDeflateFactory", "process_request_params", config, params)
        assert same(ours, *arguments) == same(model, *arguments), (config, params)


def test_the_client_takes_every_answer_as_websockets_does() -> None:
    configs = [
        (*flags, server, client, settings)
        for flags in itertools.product([False, True], repeat=2)
        for server in (None, 8, 12, 15)
        for client in (None, True, 9, 12, 15)
        for settings in (None, {"level": 1})
    ]
    for config in configs:
        offers = [module.ClientPerMessageDeflateFactory(*config) for module in (ours, model)]
        assert offers[0].get_request_params() == offers[1].get_request_params()
    for config, params in itertools.product(configs, [*combinations(False), *WRONG]):
        arguments = ("ClientPerMessageDeflateFactory", "process_response_params", config, params)
        assert same(ours, *arguments) == same(model, *arguments), (config, params)


@pytest.mark.parametrize("factory", [ServerPerMessageDeflateFactory(), ClientPerMessageDeflateFactory()])
@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ([("shape", None)], InvalidParameterName, "invalid parameter name: shape"),
        ([("server_max_window_bits", "9")] * 2, DuplicateParameter, "duplicate parameter: server_max_window_bits"),
        (
            [("client_max_window_bits", "7")],
            InvalidParameterValue,
            "invalid value for parameter client_max_window_bits: 7",
        ),
        (
            [("server_max_window_bits", None)],
            InvalidParameterValue,
            "missing value for parameter server_max_window_bits",
        ),
    ],
)
def test_wrong_parameters(factory: Any, params: Params, error: type[NegotiationError], text: str) -> None:
    process = getattr(factory, "process_request_params", None) or factory.process_response_params
    with pytest.raises(error) as caught:
        process(params, [])
    assert str(caught.value) == text


def test_once_is_enough() -> None:
    other = PerMessageDeflate(False, False, 15, 15)
    with pytest.raises(NegotiationError, match="skipped duplicate permessage-deflate"):
        ServerPerMessageDeflateFactory().process_request_params([], [other])
    with pytest.raises(NegotiationError, match="received duplicate permessage-deflate"):
        ClientPerMessageDeflateFactory().process_response_params([], [other])


@pytest.mark.parametrize("side", ["Client", "Server"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"server_max_window_bits": 7},
        {"server_max_window_bits": 16},
        {"server_max_window_bits": True},
        {"client_max_window_bits": 7},
        {"client_max_window_bits": 16},
        {"client_max_window_bits": False},
        {"compress_settings": {"wbits": 10}},
        {"compress_settings": {"level": 11}},
        {"compress_settings": {"no_such_setting": 1}},
    ],
)
def test_what_cannot_be_meant_fails_at_once(side: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        getattr(ours, f"{side}PerMessageDeflateFactory")(**arguments)


def test_we_compress_with_no_window_of_eight_bits() -> None:
    with pytest.raises(ValueError, match="server_max_window_bits must be between 9 and 15"):
        ServerPerMessageDeflateFactory(server_max_window_bits=8)
    with pytest.raises(ValueError, match="client_max_window_bits must be between 9 and 15"):
        ClientPerMessageDeflateFactory(client_max_window_bits=8)
    with pytest.raises(ValueError, match="client_max_window_bits, which isn't configured"):
        ServerPerMessageDeflateFactory(require_client_max_window_bits=True)


@pytest.mark.parametrize("side", ["client", "server"])
def test_enabling(side: str) -> None:
    """Enabling compression adds the default factory unless one is there already."""
    factory = getattr(ours, f"{side.title()}PerMessageDeflateFactory")
    enable = getattr(ours, f"enable_{side}_permessage_deflate")
    (ours_default,), (model_default,) = enable(None), getattr(model, f"enable_{side}_permessage_deflate")(None)
    assert type(ours_default) is factory
    for name in FACTORY_FIELDS:
        assert getattr(ours_default, name) == getattr(model_default, name)

    class Other:
        name = "x-other"

    other, own = Other(), factory(server_no_context_takeover=True)
    given = [other]
    assert [type(extension) for extension in enable(given)] == [Other, factory]
    assert given == [other]
    assert enable([own, other]) == [own, other]


def test_defaults() -> None:
    """The defaults of both sides negotiate windows of 12 bits."""
    (server,), (client,) = enable_server_permessage_deflate(None), enable_client_permessage_deflate([])
    offer = client.get_request_params()
    assert offer == [("client_max_window_bits", None)]
    answer, extension = server.process_request_params(offer, [])
    assert answer == [("server_max_window_bits", "12"), ("client_max_window_bits", "12")]
    assert extension == PerMessageDeflate(False, False, 12, 12, {"memLevel": 5})
    assert client.process_response_params(answer, []) == extension


# Several offers, in one header or in several: the first that can be accepted counts (RFC 7692, 7.1.3).
@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ([], None),
        (["x-other"], None),
        (["permessage-deflate"], "permessage-deflate; server_max_window_bits=12"),
        (
            ["permessage-deflate; client_max_window_bits"],
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            ['permessage-deflate; client_max_window_bits="10"; server_no_context_takeover'],
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=10",
        ),
        (
            ["permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10"],
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            [
                "x-other, permessage-deflate; mistake",
                "permessage-deflate; server_max_window_bits=9; a=1, permessage-deflate",
            ],
            "permessage-deflate; server_max_window_bits=12",
        ),
        (
            ["permessage-deflate", "permessage-deflate; server_max_window_bits=9"],
            "permessage-deflate; server_max_window_bits=12",
        ),
        (["permessage-deflate; server_max_window_bits=8"], None),
        (["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], None),
    ],
)
def test_offers_in_a_handshake(headers: list[str], answer: str | None) -> None:
    lines = "".join(f"Sec-WebSocket-Extensions: {header}\r\n" for header in headers)
    request = parse_request(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + lines.encode() + b"\r\n"
    )
    accepted = accept(request, HandshakeOptions(extensions=enable_server_permessage_deflate(None)), None)
    assert accepted.response.headers.get("Sec-WebSocket-Extensions") == answer
    assert [extension.name for extension in accepted.extensions] == (["permessage-deflate"] if answer else [])
    if answer is not None:
        ((_, params),) = parse_extension(answer)
        assert outcome(lambda: model.ClientPerMessageDeflateFactory().process_response_params(params, []))[0] is None


# The extension


def test_attributes() -> None:
    """An extension keeps its parameters, and shows them in its repr."""
    arguments = (True, False, 8, 9, {"level": 1})
    extension = PerMessageDeflate(*arguments)
    assert isinstance(extension, Extension)
    assert extension.name == "permessage-deflate"
    assert fields_of(extension) == list(arguments)
    assert repr(extension) == repr(model.PerMessageDeflate(*arguments))
    assert PerMessageDeflate(False, False, 15, 15).compress_settings == {}


def test_equality() -> None:
    """Extensions are equal when their parameters are, whatever they have encoded."""
    extension = PerMessageDeflate(True, False, 8, 9)
    extension.encode(Frame(Opcode.TEXT, b"tide"))
    assert extension == PerMessageDeflate(True, False, 8, 9, {})
    assert hash(extension) == hash(PerMessageDeflate(True, False, 8, 9))
    for other in [(False, False, 8, 9), (True, True, 8, 9), (True, False, 9, 9), (True, False, 8, 10)]:
        assert extension != PerMessageDeflate(*other)
    assert extension != PerMessageDeflate(True, False, 8, 9, {"level": 1})
    assert extension != "permessage-deflate"


@pytest.mark.parametrize(
    "arguments", [(False, False, 7, 9), (False, False, 16, 9), (False, False, 9, 8), (False, False, 9, 16)]
)
def test_wrong_bits(arguments: Any) -> None:
    with pytest.raises(ValueError, match="must be between"):
        PerMessageDeflate(*arguments)
    with pytest.raises(ValueError, match="must not include wbits"):
        PerMessageDeflate(False, False, 9, 9, {"wbits": 9})


def test_control_frames_and_messages_that_are_not_compressed_pass() -> None:
    extension = PerMessageDeflate(False, False, 15, 15)
    for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
        frame = Frame(opcode, b"")
        assert extension.encode(frame) is frame
        assert extension.decode(frame) is frame
    for frame in (Frame(Opcode.TEXT, b"ti", fin=False), Frame(Opcode.CONT, b"de"), Frame(Opcode.BINARY, b"tide")):
        assert extension.decode(frame, max_size=0) is frame
    # The bit has no meaning there, and is left for who checks frames to refuse.
    extension.decode(Frame(Opcode.TEXT, b"ti", fin=False))
    assert extension.decode(Frame(Opcode.CONT, b"de", rsv1=True)).rsv1


def test_a_message_in_fragments() -> None:
    ping = Frame(Opcode.PING, b"")
    pieces = [
        Frame(Opcode.TEXT, b"ti", fin=False, rsv3=True),
        Frame(Opcode.CONT, b"d", fin=False),
        Frame(Opcode.CONT, b"e"),
    ]
    sender, receiver = (PerMessageDeflate(False, False, 15, 15) for _ in range(2))
    for _ in range(2):
        sent = [sender.encode(piece) for piece in pieces]
        assert [frame.rsv1 for frame in sent] == [True, False, False]
        assert sent[0].rsv3
        received = []
        for frame in sent:
            received.append(receiver.decode(frame))
            assert receiver.decode(ping) is ping
        assert received == pieces


def test_a_continuation_with_the_bit_that_starts_a_message() -> None:
    extension = PerMessageDeflate(False, False, 15, 15)
    extension.decode(Frame(Opcode.TEXT, b"\x00", fin=False, rsv1=True))
    with pytest.raises(ProtocolError, match="RSV1 bit set in continuation frame"):
        extension.decode(Frame(Opcode.CONT, b"\x00", rsv1=True))


def test_a_bad_stream() -> None:
    extension = PerMessageDeflate(False, False, 15, 15)
    with pytest.raises(ProtocolError) as caught:
        extension.decode(Frame(Opcode.TEXT, b"\xff\xff\xff", rsv1=True))
    assert str(caught.value) == "decompression failed"
    assert "invalid block type" in str(caught.value.__cause__)


@pytest.mark.parametrize("fin", [True, False])
def test_a_bomb(fin: bool) -> None:
    """A thousand times its size, and of all that the limit and little more is made."""
    data = model.PerMessageDeflate(False, False, 15, 15).encode(ModelFrame(ModelOpcode.BINARY, bytes(1 << 26))).data
    extension = PerMessageDeflate(False, False, 15, 15)
    frame = Frame(Opcode.BINARY, bytes(data), fin=fin, rsv1=True)
    assert len(frame.data) * 1000 < 1 << 26
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig) as caught:
            extension.decode(frame, max_size=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert (caught.value.size, caught.value.max_size) == (None, 1 << 20)
    assert str(caught.value) == "frame exceeds limit of 1048576 bytes"
    assert pickle.loads(pickle.dumps(caught.value)).max_size == 1 << 20


def test_a_limit_of_nothing_allows_an_empty_message() -> None:
    empty, full = (PerMessageDeflate(False, False, 15, 15).encode(Frame(Opcode.TEXT, data)) for data in (b"", b"a"))
    assert PerMessageDeflate(False, False, 15, 15).decode(empty, max_size=0).data == b""
    with pytest.raises(PayloadTooBig):
        PerMessageDeflate(False, False, 15, 15).decode(full, max_size=0)


# Frames, both ways, with websockets on the other side

MESSAGES = st.builds(
    lambda pieces, times: [piece * times for piece in pieces],
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.integers(1, 200),
)
AGREED = st.tuples(st.booleans(), st.booleans(), st.integers(9, 15), st.integers(9, 15))


def frames_of(kind: Any, opcodes: Any, pieces: list[bytes]) -> list[Any]:
    last = len(pieces) - 1
    return [kind(opcodes.CONT if index else opcodes.BINARY, piece, index == last) for index, piece in enumerate(pieces)]


def carried(sender: Any, receiver: Any, frames: list[Any], kind: Any, opcodes: Any) -> list[Any]:
    """What the receiver makes of what the sender makes of these frames."""
    found = []
    for frame in frames:
        sent = sender.encode(frame)
        copy = kind(opcodes(int(sent.opcode)), bytes(sent.data), sent.fin, sent.rsv1, sent.rsv2, sent.rsv3)
        found.append(receiver.decode(copy, max_size=len(frame.data)))
    return found


@given(AGREED, st.lists(st.tuples(MESSAGES, st.booleans()), max_size=6))
def test_websockets_on_the_other_side(agreed: Any, messages: list[tuple[list[bytes], bool]]) -> None:
    here = PerMessageDeflate(*agreed, {"memLevel": 5})
    remote, local, remote_bits, local_bits = agreed
    there = model.PerMessageDeflate(local, remote, local_bits, remote_bits, {"memLevel": 9})
    for pieces, release in messages:
        sent = frames_of(Frame, Opcode, pieces)
        model_sent = frames_of(ModelFrame, ModelOpcode, pieces)
        assert carried(here, there, sent, ModelFrame, ModelOpcode) == model_sent
        assert carried(there, here, model_sent, Frame, Opcode) == sent
        if release:
            here.deflate.release()
