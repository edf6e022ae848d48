"""WebSocket connections of ASGI applications: each event in each state, and either end leaving at each moment.

The specification is https://asgi.readthedocs.io/en/latest/specs/www.html. What must not live here: scopes
(test_scope.py), HTTP (test_http_service.py), what the native code does beyond events (tests/core/test_asgi.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.asyncio.calls import AsgiServing, Call, asgi_serving
from tests.support import wire
from tests.support.coroutines import outcome, until
from tests.support.rawpeer import REQUEST, ClientPeer
from tests.support.wire import close, frame
from tidegate.asyncio.asgi import ClientDisconnected

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
TEXT = {"type": "websocket.send", "text": "x"}
START = {"type": "websocket.http.response.start", "status": 401, "headers": []}
BODY = {"type": "websocket.http.response.body", "body": b"no"}
LOST = {"type": "websocket.disconnect", "code": 1006}


async def ignored(awaitable: Awaitable[Any]) -> None:
    await outcome(awaitable)


# The handshake


async def test_the_application_is_called_before_the_handshake_is_answered() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        assert call.scope["type"] == "websocket"
        assert await call.receive() == {"type": "websocket.connect"}
        await call.send(
            {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"X-Room", b"1"), [b"x-b", b"2"]]}
        )
        async with asyncio.timeout(10):
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"\r\nSec-WebSocket-Protocol: chat\r\nx-room: 1\r\nx-b: 2\r\nServer: " in head
        assert made.server.connections


async def test_it_may_accept_before_it_receives() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.send(ACCEPT)
        peer.send(frame(b"hi"))
        assert await call.receive() == {"type": "websocket.connect"}
        assert await call.receive() == {"type": "websocket.receive", "text": "hi"}


async def test_a_rejected_request_does_not_reach_it() -> None:
    async with asgi_serving() as made:
        status, _, _ = await made.ask(REQUEST.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12"))
        assert status == 426
        status, _, _ = await made.ask(REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"))
        assert status == 413
        assert made.calls.empty()


async def test_origins_are_checked_first() -> None:
    async with asgi_serving(origins=["https://example.com"]) as made:
        status, _, _ = await made.ask()
        assert status == 403
        assert made.calls.empty()
        await made.opened(wire.request(headers={"Origin": "https://example.com"}))


@pytest.mark.parametrize("extra", [{}, {"code": 4000, "reason": "no"}])
async def test_closing_before_accepting_is_403(extra: dict[str, Any]) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        assert await call.receive() == {"type": "websocket.connect"}
        await call.send({**CLOSE, **extra})
        status, headers, body = await peer.answer()
        assert (status, body) == (403, "")
        assert headers["content-length"] == "0"
        assert await call.receive() == LOST
        with pytest.raises(RuntimeError, match=r"after 'websocket\.close'"):
            await call.send(ACCEPT)


async def test_a_response_of_its_own_in_one_piece() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        assert call.scope["extensions"]["websocket.http.response"] == {}
        await call.send({**START, "headers": [(b"WWW-Authenticate", b"Basic")]})
        await call.send(BODY)
        status, headers, body = await peer.answer()
        assert (status, headers["www-authenticate"], headers["content-length"], body) == (401, "Basic", "2", "no")
        assert await call.receive() == {"type": "websocket.connect"}
        assert await call.receive() == LOST
        with pytest.raises(RuntimeError, match=r"unexpected event 'websocket\.accept' after"):
            await call.send(ACCEPT)


async def test_a_response_of_its_own_in_pieces() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.send(START)
        await call.send({**BODY, "body": b"one ", "more_body": True})
        async with asyncio.timeout(10):
            assert (await peer.reader.readuntil(b"one ")).endswith(b"connection: close\r\n\r\none ")
        await call.send({**BODY, "body": b"two", "more_body": False})
        assert await peer.rest() == b"two"


async def test_a_response_of_its_own_takes_its_time() -> None:
    """The time for the handshake bounds each piece, not all of them."""
    async with asgi_serving(open_timeout=2) as made:
        peer, call = await made.asked()
        await call.send(START)
        (connection,) = made.server._registry.all
        first = connection._deadline
        while connection._deadline == first:
            await call.send({**BODY, "body": b".", "more_body": True})
            await asyncio.sleep(0.01)
        assert connection._deadline > first
        await call.send(BODY)
        assert (await peer.rest()).endswith(b".no")


async def test_a_response_without_a_body() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.send({**START, "status": 304})
        await call.send(BODY)
        status, headers, body = await peer.answer()
        assert (status, body) == (304, "")
        assert "content-length" not in headers


async def test_returning_or_failing_before_an_answer_is_500(log: pytest.LogCaptureFixture) -> None:
    async with asgi_serving() as made:
        for error, words in ((None, "returned without an answer"), (ZeroDivisionError(), "ASGI application failed")):
            log.clear()
            peer, call = await made.asked()
            await call.finish(error)
            status, _, _ = await peer.answer()
            assert status == 500
            assert words in log.text


async def test_returning_in_the_middle_of_a_response_breaks_it(log: pytest.LogCaptureFixture) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.send(START)
        await call.send({**BODY, "more_body": True})
        await call.finish()
        await peer.rest()
        assert "without the end of its response" in log.text


async def test_open_timeout_bounds_an_application_that_never_accepts(row: Any) -> None:
    async with asgi_serving(open_timeout=0.1) as made:
        peer, call = await made.asked()
        assert await call.receive() == {"type": "websocket.connect"}
        assert await call.receive() == LOST
        assert await peer.rest() == b""
        with pytest.raises(ClientDisconnected):
            await call.send(ACCEPT)
        assert row.words("handshakes")


async def test_a_client_that_leaves_before_the_answer() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        peer.reset()
        await until(lambda: not made.server._registry.all)
        assert await call.receive() == {"type": "websocket.connect"}
        assert await call.receive() == LOST
        assert await call.receive() == LOST
        for event in (ACCEPT, CLOSE, START):
            with pytest.raises(ClientDisconnected):
                await call.send(event)


async def test_frames_that_come_before_the_answer_are_kept() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked(REQUEST + frame(b"early"))
        peer.send(frame(b"also"))
        await call.accept()
        assert await call.receive() == {"type": "websocket.receive", "text": "early"}
        assert await call.receive() == {"type": "websocket.receive", "text": "also"}


async def test_a_server_that_closes_answers_503_for_it() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        waiting = asyncio.ensure_future(outcome(call.receive()))
        assert await waiting == {"type": "websocket.connect"}
        made.server.reject_handshakes()
        status, headers, _ = await peer.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert await call.receive() == LOST
        with pytest.raises(ClientDisconnected):
            await call.send(ACCEPT)


async def test_a_server_that_closes_answers_once_for_a_response_that_has_not_begun(
    log: pytest.LogCaptureFixture,
) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.send(START)
        made.server.reject_handshakes()
        with pytest.raises(ClientDisconnected):
            await call.send(BODY)
        await call.finish()
        status, _, body = await peer.answer()
        assert (status, body) == (503, "Server is shutting down.\n")
    assert "returned without" not in log.text


@pytest.mark.parametrize("subprotocol", [None, ""])
async def test_accepting_without_a_subprotocol(subprotocol: str | None) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        await call.accept(subprotocol=subprotocol)
        assert b"sec-websocket-protocol" not in (await peer.reader.readuntil(b"\r\n\r\n")).lower()
        (connection,) = made.server.connections
        assert connection.subprotocol is None


# Messages


async def test_messages_of_either_type() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        peer.send(frame(b"text"), frame(b"\x00\xff", wire.BINARY), frame(b""), frame(b"", wire.BINARY))
        assert await call.receive() == {"type": "websocket.receive", "text": "text"}
        assert await call.receive() == {"type": "websocket.receive", "bytes": b"\x00\xff"}
        assert await call.receive() == {"type": "websocket.receive", "text": ""}
        assert await call.receive() == {"type": "websocket.receive", "bytes": b""}
        await call.send({"type": "websocket.send", "text": "héllo"})
        await call.send({"type": "websocket.send", "bytes": b"\x00", "text": None})
        await call.send({"type": "websocket.send", "text": "", "bytes": None})
        await call.send({"type": "websocket.send", "bytes": bytearray(b"array")})
        await call.send({"type": "websocket.send", "bytes": memoryview(b"view")})
        assert [await peer.frame() for _ in range(5)] == [
            (0x81, "héllo".encode()),
            (0x82, b"\x00"),
            (0x81, b""),
            (0x82, b"array"),
            (0x82, b"view"),
        ]


async def test_fragments_are_one_message() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        peer.send(frame(b"a", fin=False), frame(b"b", wire.CONT, fin=False), frame(b"c", wire.CONT))
        assert await call.receive() == {"type": "websocket.receive", "text": "abc"}


async def test_compression_is_negotiated_as_for_handlers() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            await send(ACCEPT if event["type"] == "websocket.connect" else {**event, "type": "websocket.send"})

    async with asgi_serving(echo, compression="deflate") as made, connect(made.uri) as client:
        assert client.protocol.extensions
        for size in (0, 10, 100_000):
            await client.send("x" * size)
            assert await client.recv() == "x" * size


async def test_pings_are_answered_and_sent() -> None:
    async with asgi_serving(ping_interval=0.05) as made:
        peer, call = await made.opened()
        peer.send(frame(b"p", wire.PING))
        seen = {(await peer.frame())[0], (await peer.frame())[0]}
        assert seen == {0x80 | wire.PING, 0x80 | wire.PONG}
        await call.send(CLOSE)


async def test_send_waits_for_a_slow_client() -> None:
    async with asgi_serving(write_limit=1024) as made:
        peer, call = await made.opened(receive_buffer=4096)
        large = {"type": "websocket.send", "bytes": bytes(4_000_000)}
        sending = asyncio.ensure_future(call.send(large))
        await asyncio.sleep(0.1)
        assert not sending.done()
        assert len((await peer.frame())[1]) == 4_000_000
        await sending


async def test_a_client_that_leaves_while_send_waits() -> None:
    async with asgi_serving(write_limit=1024) as made:
        peer, call = await made.opened(receive_buffer=4096)
        sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": bytes(4_000_000)}))
        await asyncio.sleep(0.05)
        peer.reset()
        with pytest.raises(ClientDisconnected):
            await sending


async def test_a_message_that_is_too_large_fails_the_connection() -> None:
    async with asgi_serving(max_size=10) as made:
        peer, call = await made.opened()
        peer.send(frame(b"x" * 11))
        code, _ = await peer.close_frame()
        assert code == 1009
        event = await call.receive()
        assert (event["type"], event["code"]) == ("websocket.disconnect", 1009)


# The end


async def test_messages_before_the_clients_close_are_received_first() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        peer.send(frame(b"1"), frame(b"2"), close(4321, "bye"))
        await peer.rest()
        assert (await call.receive())["text"] == "1"
        assert (await call.receive())["text"] == "2"
        end = {"type": "websocket.disconnect", "code": 4321, "reason": "bye"}
        assert await call.receive() == end
        assert await call.receive() == end
        for event in (TEXT, CLOSE, {**TEXT, "text": None, "bytes": b""}):
            with pytest.raises(ClientDisconnected):
                await call.send(event)


@pytest.mark.parametrize(
    ("leave", "end"),
    [
        (lambda peer: peer.send(frame(b"", wire.CLOSE)), {"code": 1005, "reason": ""}),
        (lambda peer: peer.send(close(1001, "away")), {"code": 1001, "reason": "away"}),
        (lambda peer: peer.reset(), {"code": 1006}),
        (lambda peer: peer.close(), {"code": 1006}),
    ],
)
async def test_codes_of_the_end_while_receive_waits(
    leave: Callable[[ClientPeer], None], end: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        waiting = asyncio.ensure_future(call.receive())
        await asyncio.sleep(0)
        leave(peer)
        assert await waiting == {"type": "websocket.disconnect", **end}
        assert isinstance(await outcome(call.send(TEXT)), OSError)
        await call.finish(ClientDisconnected(made and call.send.__self__._end))  # type: ignore[attr-defined]
    assert not [record for record in log.records if record.levelno >= logging.ERROR]


async def test_send_to_a_client_that_has_left_is_an_oserror_that_is_not_logged(log: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while True:
            await send(TEXT)
            await asyncio.sleep(0)

    async with asgi_serving(application) as made:
        peer = await made.peer()
        peer.send(close())
        await peer.rest()
    assert not [record for record in log.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("extra", "sent"),
    [({}, (1000, "")), ({"code": 3001, "reason": "r"}, (3001, "r")), ({"code": None, "reason": None}, (1000, ""))],
)
async def test_the_application_closes(extra: dict[str, Any], sent: tuple[int, str]) -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        await call.send({**CLOSE, **extra})
        assert await peer.close_frame() == sent
        for event in (TEXT, CLOSE, ACCEPT):
            with pytest.raises(RuntimeError, match=f"unexpected event '{event['type']}' after 'websocket.close'"):
                await call.send(event)
        peer.send(close(*sent))
        event = await call.receive()
        assert (event["code"], event.get("reason", "")) == sent


@pytest.mark.parametrize("extra", [{"code": 1005}, {"code": 999}, {"code": "1000"}, {"reason": "x" * 124}])
async def test_a_close_that_cannot_be_sent_names_it(extra: dict[str, Any]) -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        with pytest.raises(ValueError, match=r"websocket\.close cannot be sent with code"):
            await call.send({**CLOSE, **extra})
        await call.send(CLOSE)
        assert await peer.close_frame() == (1000, "")


async def test_returning_closes_with_1000_and_failing_with_1011(log: pytest.LogCaptureFixture) -> None:
    async with asgi_serving() as made:
        for error, code in ((None, 1000), (ZeroDivisionError(), 1011)):
            peer, call = await made.opened()
            await call.finish(error)
            assert await peer.close_frame() == (code, "")
        assert "ASGI application failed" in log.text


async def test_an_application_that_asks_on_after_the_end_does_not_stop_the_others() -> None:
    asked = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        await send(ACCEPT)
        while asked < 1000:
            asked += (await receive())["type"] == "websocket.disconnect"

    async with asgi_serving(application) as made:
        peer = await made.peer()
        peer.send(close(4000, "bye"))
        await until(lambda: asked)
        assert asked < 1000


async def test_a_drain_says_1001_to_both() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        made.server.close(reason="drain")
        assert await peer.close_frame() == (1001, "drain")
        assert await outcome(call.send(TEXT)) is not None
        peer.send(close(1001, "drain"))
        assert await call.receive() == {"type": "websocket.disconnect", "code": 1001, "reason": "drain"}


async def test_a_cancelled_application_breaks_its_connection() -> None:
    async with asgi_serving() as made:
        peer, _ = await made.opened()
        for task in set(made.server.handler_tasks):
            task.cancel()
        await peer.rest()


# Events in the wrong state, and wrong events


@pytest.mark.parametrize("event", [TEXT, BODY])
async def test_what_must_not_come_before_accept(event: dict[str, Any]) -> None:
    async with asgi_serving() as made:
        _, call = await made.asked()
        with pytest.raises(
            RuntimeError, match=f"unexpected event '{event['type']}' while connecting: it must be one of"
        ):
            await call.send(event)


@pytest.mark.parametrize("event", [ACCEPT, START, BODY, {"type": "http.response.start"}])
async def test_what_must_not_come_after_accept(event: dict[str, Any]) -> None:
    async with asgi_serving() as made:
        _, call = await made.opened()
        with pytest.raises(RuntimeError, match=f"unexpected event '{event['type']}' while open"):
            await call.send(event)


@pytest.mark.parametrize("event", [ACCEPT, START, TEXT, CLOSE])
async def test_what_must_not_come_in_a_response(event: dict[str, Any]) -> None:
    async with asgi_serving() as made:
        _, call = await made.asked()
        await call.send(START)
        with pytest.raises(RuntimeError, match=f"unexpected event '{event['type']}' while responding"):
            await call.send(event)


@pytest.mark.parametrize(
    ("event", "error", "words"),
    [
        (None, TypeError, "must be a dict with a type"),
        ({}, TypeError, "must be a dict with a type"),
        ({"type": "websocket.send"}, ValueError, "must have text or bytes"),
        ({"type": "websocket.send", "text": "a", "bytes": b"b"}, ValueError, "and not both"),
        ({"type": "websocket.send", "text": b"a"}, TypeError, "text of websocket.send must be a str, not bytes"),
        ({"type": "websocket.send", "bytes": "a"}, TypeError, "bytes of websocket.send must be bytes, not str"),
    ],
)
async def test_wrong_events_on_an_open_connection(event: Any, error: type[Exception], words: str) -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        with pytest.raises(error, match=words):
            await call.send(event)
        await call.send(TEXT)
        assert await peer.frame() == (0x81, b"x")


@pytest.mark.parametrize(
    ("extra", "error", "words"),
    [
        ({"subprotocol": "a b"}, ValueError, "subprotocol must be a token"),
        ({"subprotocol": b"a"}, TypeError, "subprotocol must be a str"),
        ({"headers": [(b"a", b"b\r\nc: d")]}, ValueError, "not a value of the header a"),
        ({"headers": [(b"a:", b"b")]}, ValueError, "not a name of a header"),
        ({"headers": [("a", "b")]}, TypeError, "must be bytes"),
        ({"headers": [(b"Sec-WebSocket-Protocol", b"a")]}, ValueError, "use subprotocol"),
        ({"headers": [(b"connection", b"close")]}, ValueError, "is the server's"),
    ],
)
async def test_wrong_ways_to_accept(extra: dict[str, Any], error: type[Exception], words: str) -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        with pytest.raises(error, match=words):
            await call.send({**ACCEPT, **extra})
        await call.send(ACCEPT)
        async with asyncio.timeout(10):
            assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("status", [101, 99, 600, "200", None])
async def test_wrong_status_of_a_response(status: Any) -> None:
    async with asgi_serving() as made:
        _, call = await made.asked()
        with pytest.raises(ValueError, match="must be 200 to 599"):
            await call.send({**START, "status": status})


async def test_a_subclass_of_dict_and_other_mappings_are_events() -> None:
    class Event(dict[str, Any]):
        pass

    async with asgi_serving() as made:
        peer, call = await made.opened()
        await call.send(Event(TEXT))
        assert await peer.frame() == (0x81, b"x")


# receive() in other tasks


async def test_receive_in_several_tasks_takes_turns() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        readers = [asyncio.ensure_future(call.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        peer.send(frame(b"1"), frame(b"2"), frame(b"3"))
        assert [(await reader)["text"] for reader in readers] == ["1", "2", "3"]


async def test_each_of_several_readers_is_told_of_the_end() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        readers = [asyncio.ensure_future(call.receive()) for _ in range(3)]
        await asyncio.sleep(0)
        peer.send(close(1000))
        assert [(await reader)["code"] for reader in readers] == [1000] * 3


async def test_receive_that_is_cancelled_loses_nothing() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        for waiting in (1, 3):
            readers = [asyncio.ensure_future(call.receive()) for _ in range(waiting)]
            await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            peer.send(frame(b"kept"))
            assert (await call.receive())["text"] == "kept"


async def test_a_cancelled_reader_gives_its_turn_to_the_next() -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        first, second, third = (asyncio.ensure_future(call.receive()) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        peer.send(frame(b"x"))
        assert (await third)["text"] == "x"


async def test_receive_in_another_task_from_before_the_answer() -> None:
    async with asgi_serving() as made:
        peer, call = await made.asked()
        assert await call.receive() == {"type": "websocket.connect"}
        reader = asyncio.ensure_future(call.receive())
        await asyncio.sleep(0)
        await call.send(ACCEPT)
        peer.send(frame(b"x"))
        assert (await reader)["text"] == "x"


@pytest.mark.parametrize("how", [asyncio.ensure_future, asyncio.create_task, asyncio.shield])
async def test_receive_and_send_are_coroutines_to_asyncio(how: Callable[[Any], Awaitable[Any]]) -> None:
    async with asgi_serving() as made:
        peer, call = await made.opened()
        connection: Any = call.send.__self__  # type: ignore[attr-defined]
        peer.send(frame(b"x"))
        assert (await how(connection.receive()))["text"] == "x"
        await how(call.send(TEXT))
        assert await asyncio.wait_for(call.send(TEXT), 10) is None
        assert asyncio.iscoroutinefunction(connection.receive)


async def test_both_ends_leave_at_the_same_time() -> None:
    async with asgi_serving() as made:
        for _ in range(20):
            peer, call = await made.opened()
            peer.send(frame(b"1"), close(4000))
            await call.send({**CLOSE, "code": 4001})
            assert (await call.receive())["type"] in ("websocket.receive", "websocket.disconnect")
            await peer.rest()
            await call.finish()


async def test_many_connections_at_once() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            await send(
                ACCEPT if event["type"] == "websocket.connect" else {"type": "websocket.send", "text": event["text"]}
            )

    async def talk(made: AsgiServing) -> None:
        peer = await made.peer()
        for number in range(20):
            peer.send(frame(str(number).encode()))
            assert await peer.frame() == (0x81, str(number).encode())
        peer.send(close())
        await peer.rest()

    async with asgi_serving(echo) as made:
        await asyncio.gather(*(talk(made) for _ in range(20)))


async def test_a_call_is_what_it_seems() -> None:
    async with asgi_serving() as made:
        _, call = await made.opened()
        assert isinstance(call, Call)
        made_call = call.send(TEXT)
        assert asyncio.iscoroutine(made_call)
        assert "coroutine object" in repr(made_call)
        await made_call
