"""connect(): what it asks, which answers it takes, what it raises, redirects, reconnecting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from tests.differential.library import Record, add, scenario
from tests.differential.stage import QUIET, SHORT, Actor, dialled, raw_server
from tests.support.coroutines import outcome
from tests.support.wire import TEXT

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def dial(lib: Any, uri: str, **options: Any) -> Any:
    """Connect, close: the connection, or what was raised."""
    websocket = await outcome(lib.connect(uri, proxy=None, **{**QUIET, **options}))
    if not isinstance(websocket, Exception):
        await websocket.close()
    return websocket


def note(record: Record, result: Any) -> None:
    """What came of connecting."""
    if isinstance(result, Exception):
        record("raised", type(result).__name__, str(result))
        record("cause", result.__cause__)
        response = getattr(result, "response", None)
        if response is not None:
            record("response", response.status_code, response.reason_phrase, response.headers, response.body)
    else:
        record("subprotocol", result.subprotocol)
        record("extensions", [repr(each) for each in result.protocol.extensions])
        record("response", result.response.status_code, result.response.headers)
        record("end", result.close_code, result.close_reason)


# Scenario -> options of connect().
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "origin": {"origin": "https://a.example"},
    "subprotocols": {"subprotocols": ["chat", "superchat"]},
    "compression": {"compression": "deflate"},
    "user_agent": {"user_agent_header": "frob/1"},
    "no_user_agent": {"user_agent_header": None},
    "headers_dict": {"additional_headers": {"X-A": "1", "X-B": "2"}},
    "headers_list": {"additional_headers": [("X-A", "1"), ("X-A", "2")]},
    "headers_override_host": {"additional_headers": {"Host": "other.example"}},
    "headers_override_user_agent": {"additional_headers": {"User-Agent": "x"}},
}


def asking(options: dict[str, Any], path: str = "") -> Any:
    async def ask(lib: Any, record: Record) -> None:
        async def script(peer: Actor) -> None:
            first, headers = await peer.accept()
            record("asked", first, [name for name, _ in headers], [pair for pair in headers if pair[1] is not None])
            record("frames", await peer.rest())

        async with raw_server(script) as uri:
            note(record, await dial(lib, uri + path, **options))

    return ask


for name, options in ASKED.items():
    add(f"client_asks_{name}", asking(options))
add("client_asks_path", asking({}, "a/b?c=d"))


@scenario
async def client_asks_with_credentials(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        first, headers = await peer.accept()
        record("asked", first, dict(headers).get("Authorization"))
        await peer.rest()

    async with raw_server(script) as uri:
        note(record, await dial(lib, uri.replace("//", "//user:p%40ss@")))


# Scenario -> more lines of a response that accepts, options of connect().
ACCEPTED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "subprotocol": (["Sec-WebSocket-Protocol: chat"], {"subprotocols": ["chat", "b"]}),
    "subprotocol_not_asked_for": (["Sec-WebSocket-Protocol: chat"], {}),
    "subprotocol_not_offered": (["Sec-WebSocket-Protocol: frob"], {"subprotocols": ["chat"]}),
    "two_subprotocols": (["Sec-WebSocket-Protocol: chat, b"], {"subprotocols": ["chat", "b"]}),
    "deflate": ([DEFLATE], {"compression": "deflate"}),
    "deflate_parameters": (
        [DEFLATE + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"],
        {"compression": "deflate"},
    ),
    "deflate_client_bits": ([DEFLATE + "; client_max_window_bits=10"], {"compression": "deflate"}),
    "deflate_not_asked_for": ([DEFLATE], {}),
    "deflate_unknown_parameter": ([DEFLATE + "; frob"], {"compression": "deflate"}),
    "deflate_bad_bits": ([DEFLATE + "; server_max_window_bits=99"], {"compression": "deflate"}),
    "deflate_repeated_parameter": (
        [DEFLATE + "; server_max_window_bits=10; server_max_window_bits=10"],
        {"compression": "deflate"},
    ),
    "deflate_twice": ([DEFLATE + ", permessage-deflate"], {"compression": "deflate"}),
    "extension_unknown": (["Sec-WebSocket-Extensions: x-frob"], {"compression": "deflate"}),
    "extension_bad_format": (["Sec-WebSocket-Extensions: ;"], {"compression": "deflate"}),
    "unknown_headers": (["X-A: 1", "X-A: 2"], {}),
    "second_accept": (["Sec-WebSocket-Accept: x"], {}),
    "second_upgrade": (["Upgrade: h2c"], {}),
}


def answering(lines: list[str], options: dict[str, Any]) -> Any:
    async def answer(lib: Any, record: Record) -> None:
        async def script(peer: Actor) -> None:
            await peer.accept(*lines)
            record("frames", await peer.rest())

        async with raw_server(script) as uri:
            note(record, await dial(lib, uri, **options))

    return answer


for name, (lines, options) in ACCEPTED.items():
    add(f"client_gets_{name}", answering(lines, options))

GOOD = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

# Scenario -> the response.
ANSWERS: dict[str, str] = {
    "200": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    "404_without_length": "HTTP/1.1 404 Not Found\r\nX-A: 1\r\n\r\nuntil the end",
    "403_chunked": "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "401": 'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n',
    "204": "HTTP/1.1 204 No Content\r\n\r\n",
    "500": "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "999": "HTTP/1.1 999 Frob\r\nContent-Length: 0\r\n\r\n",
    "no_reason": "HTTP/1.1 403 \r\nContent-Length: 0\r\n\r\n",
    "empty_reason_without_space": "HTTP/1.1 403\r\nContent-Length: 0\r\n\r\n",
    "http_1_0": "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http_2": "HTTP/2 200 OK\r\n\r\n",
    "status_of_two_digits": "HTTP/1.1 99 Low\r\n\r\n",
    "status_of_letters": "HTTP/1.1 abc Low\r\n\r\n",
    "junk": "frob\r\n\r\n",
    "header_without_colon": "HTTP/1.1 200 OK\r\nfrob\r\n\r\n",
    "bad_length": "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "nothing": "",
    "half_a_head": "HTTP/1.1 101 Switching",
    "half_a_body": "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nbody",
    "long_status_line": "HTTP/1.1 200 " + "x" * 9000 + "\r\n\r\n",
    "long_header": "HTTP/1.1 200 OK\r\nX-A: " + "x" * 9000 + "\r\n\r\n",
    "many_headers": "HTTP/1.1 200 OK\r\n" + "X-A: 1\r\n" * 130 + "\r\n",
    "long_body": "HTTP/1.1 404 Not Found\r\nContent-Length: 2000000\r\n\r\n",
    "no_accept": GOOD + "\r\n",
    "wrong_accept": GOOD + "Sec-WebSocket-Accept: eA==\r\n\r\n",
    "no_upgrade": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    "no_connection": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "other_upgrade": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "redirect_without_location": "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "not_modified": "HTTP/1.1 304 Not Modified\r\nLocation: /x\r\n\r\n",
}


def refusing(response: str) -> Any:
    async def refuse(lib: Any, record: Record) -> None:
        async def script(peer: Actor) -> None:
            await peer.head()
            peer.write(response.encode())
            peer.writer.write_eof()
            record("frames", len(await peer.rest()))

        async with raw_server(script) as uri:
            note(record, await dial(lib, uri))

    return refuse


for name, response in ANSWERS.items():
    add(f"client_gets_{name}", refusing(response))


def redirecting(name: str, *locations: str, status: str = "302 Found", **options: Any) -> None:
    """A scenario of redirects: `{uri}` is the server itself, after the last one it accepts."""

    async def redirect(lib: Any, record: Record) -> None:
        left = list(locations)

        async def script(peer: Actor) -> None:
            first, headers = await peer.head()
            asked = dict(headers)
            record("asked", first, asked.get("Authorization"), asked.get("Cookie"), asked.get("X-A"))
            if not left:
                peer.write(peer.acceptance())
                await peer.rest()
                return
            location = left.pop(0).format(uri=here[0], other=here[1])
            peer.write(f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            await peer.reader.read()

        here: list[str] = []
        async with raw_server(script) as uri, raw_server(script) as other:
            here[:] = uri, other
            result = await dial(lib, uri, **options)
            record("raised", *([result] if not hasattr(result, "response") else []))

    add(f"client_redirected_{name}", redirect)


SECRET = {"additional_headers": {"Authorization": "secret", "Cookie": "a=b", "X-A": "1"}}
redirecting("path", "/elsewhere?x=y")
redirecting("relative", "elsewhere")
redirecting("uri", "{uri}x")
redirecting("permanently", "/x", status="301 Moved Permanently")
redirecting("see_other", "/x", status="303 See Other")
redirecting("temporary", "/x", status="307 Temporary Redirect")
redirecting("permanent", "/x", status="308 Permanent Redirect")
redirecting("multiple_choices", "/x", status="300 Multiple Choices")
redirecting("nine_times", *["/x"] * 9)
redirecting("ten_times", *["/x"] * 10)
redirecting("eleven_times", *["/x"] * 11)
redirecting("same_origin_keeps_secrets", "/x", **SECRET)
redirecting("other_origin_drops_secrets", "{other}", **SECRET)
redirecting("to_http", "http://127.0.0.1/")
redirecting("to_ftp", "ftp://127.0.0.1/")
redirecting("to_a_fragment", "/x#frag")


@scenario
async def client_times_out(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        await peer.head()
        await peer.reader.read()

    async with raw_server(script) as uri:
        exc = await dial(lib, uri, open_timeout=SHORT)
        record("raised", type(exc).__name__, str(exc))


@scenario
async def client_of_no_server(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        pass

    async with raw_server(script) as uri:
        pass
    record("raised", type(await dial(lib, uri)).__name__)


# Scenario -> URI, options: mistakes.
MISTAKES: dict[str, tuple[Any, dict[str, Any]]] = {
    "scheme": ("http://localhost/", {}),
    "no_scheme": ("localhost", {}),
    "no_host": ("ws:///path", {}),
    "fragment": ("ws://localhost/#frag", {}),
    "port": ("ws://localhost:99999/", {}),
    "user_without_password": ("ws://user@localhost/", {}),
    "empty": ("", {}),
    "compression": ("ws://localhost/", {"compression": "frob"}),
    "subprotocols_str": ("ws://localhost/", {"subprotocols": "chat"}),
    "ssl_with_ws": ("ws://localhost/", {"ssl": True}),
    "no_ssl_with_wss": ("wss://localhost/", {"ssl": None}),
}


def mistaken(uri: Any, options: dict[str, Any]) -> Any:
    async def mistake(lib: Any, record: Record) -> None:
        async def call() -> Any:
            return await lib.connect(uri, proxy=None, **options)

        record("raised", await outcome(call()))

    return mistake


for name, (uri, options) in MISTAKES.items():
    add(f"client_mistake_{name}", mistaken(uri, options))


@scenario
async def client_reads_frames_that_come_with_the_response(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        await peer.head()
        peer.write(peer.acceptance() + b"\x81\x01a\x88\x02\x03\xe8")
        record("frames", await peer.frame())

    async with raw_server(script) as uri, lib.connect(uri, proxy=None, **QUIET) as websocket:
        record("messages", [message async for message in websocket])


@scenario
async def client_is_not_reentrant(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        await peer.accept()
        await peer.rest()

    async def again(connecting: Any) -> None:
        async with connecting:
            pass

    async with raw_server(script) as uri:
        connecting = lib.connect(uri, proxy=None, **QUIET)
        async with connecting:
            record("raised", await outcome(again(connecting)))


@scenario
async def client_attributes(lib: Any, record: Record) -> None:
    async with dialled(lib) as (websocket, _):
        record("kind", type(websocket).__name__, isinstance(websocket, lib.ClientConnection))
        record("id", type(websocket.id).__name__, websocket.id == websocket.id)
        record("logger", type(websocket.logger).__name__, list(websocket.logger.extra))
        record("address", websocket.remote_address[0], websocket.local_address[0], len(websocket.local_address))
        record("state", websocket.state, websocket.protocol.state, websocket.subprotocol, websocket.latency)
        record("close", websocket.close_code, websocket.close_reason)
        record("request", websocket.request.path, websocket.request.method, websocket.request.protocol)
        record("response", websocket.response.status_code, websocket.response.reason_phrase, websocket.response.body)
        record("settings", websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout, websocket.debug)


@scenario
async def client_made_by_create_connection(lib: Any, record: Record) -> None:
    class Own(lib.ClientConnection):  # type: ignore[misc, name-defined]
        pass

    async with dialled(lib, create_connection=Own) as (websocket, peer):
        peer.send(TEXT, b"a")
        record("kind", type(websocket).__name__, await websocket.recv())


def no_delay() -> Iterator[float]:
    """Delays of a client in a hurry."""
    while True:
        yield 0.0


@scenario
async def client_reconnects(lib: Any, record: Record) -> None:
    answers = ["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "", None, None]

    async def script(peer: Actor) -> None:
        await peer.head()
        answer = answers.pop(0)
        if answer is None:
            peer.write(peer.acceptance())
            record("frames", await peer.rest())
        else:
            peer.write(answer.encode())

    async with raw_server(script) as uri:
        async for websocket in lib.connect(uri, proxy=None, reconnect_delays=no_delay, **QUIET):
            record("order", "connected", websocket.state)
            if not answers:
                await websocket.close()
                break


@scenario
async def client_gives_up(lib: Any, record: Record) -> None:
    async def script(peer: Actor) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def judge(exc: Exception) -> Exception | None:
        record("judged", exc)
        return ValueError("judged")

    async def iterate(uri: str, **options: Any) -> None:
        async for _ in lib.connect(uri, proxy=None, **QUIET, **options):
            pass

    async with raw_server(script) as uri:
        record("raised", await outcome(iterate(uri)))
        record("raised", await outcome(iterate(uri, process_exception=judge)))


@scenario
async def clients_of_both_kinds_at_once(lib: Any, record: Record) -> None:
    async with lib.serve(lambda websocket: websocket.send("hello"), "127.0.0.1", 0, **QUIET) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with lib.connect(uri, proxy=None, **QUIET) as first, lib.connect(uri, proxy=None, **QUIET) as second:
            record("messages", *await asyncio.gather(first.recv(), second.recv()))
