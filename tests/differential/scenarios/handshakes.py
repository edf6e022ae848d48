"""Opening handshakes over raw sockets, good and bad: what the server answers, and what it keeps of the request."""

from __future__ import annotations

import re
from typing import Any

from tests.differential.library import Record, add
from tests.differential.stage import idle, serving
from tests.support.rawpeer import REQUEST
from tests.support.wire import request

KEY = "Sec-WebSocket-Key"
OFFER = "Sec-WebSocket-Extensions"
DEFLATE = {"compression": "deflate"}


def with_header(name: str, value: str | None) -> bytes:
    """A request with one header set, or left out."""
    return request(headers={name: value})


def with_line(line: str) -> bytes:
    """A request with one more line."""
    return REQUEST[:-2] + line.encode("iso-8859-1") + b"\r\n\r\n"


SUBPROTOCOLS = {"subprotocols": ["chat", "superchat"]}

# Scenario -> request, options of serve().
REQUESTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "plain": (REQUEST, {}),
    "with_query": (request(path="/a/b?c=d&e=%20"), {}),
    "path_is_star": (request(path="*"), {}),
    "path_is_absolute_uri": (request(path="http://localhost/x"), {}),
    "empty_header_value": (with_line("X-Empty:"), {}),
    "spaces_around_value": (with_line("X-Spaces:   a b  "), {}),
    "latin1_value": (with_line("X-Latin: caf\xe9"), {}),
    "repeated_header": (with_line("X-Same: 1\r\nX-Same: 2"), {}),
    "no_host": (with_header("Host", None), {}),
    "two_hosts": (with_line("Host: other.example"), {}),
    "host_empty": (with_header("Host", ""), {}),
    "host_with_space": (with_header("Host", "a b"), {}),
    "host_with_port": (with_header("Host", "example.com:8765"), {}),
    "host_ipv6": (with_header("Host", "[::1]:8765"), {}),
    # Methods and versions of HTTP
    "method_post": (request(method="POST"), {}),
    "method_head": (request(method="HEAD"), {}),
    "method_unknown": (request(method="FROB"), {}),
    "http_1_0": (request(version="HTTP/1.0"), {}),
    "http_2_0": (request(version="HTTP/2.0"), {}),
    # Upgrade and Connection
    "upgrade_missing": (with_header("Upgrade", None), {}),
    "upgrade_h2c": (with_header("Upgrade", "h2c"), {}),
    "upgrade_case": (with_header("Upgrade", "WebSocket"), {}),
    "upgrade_two": (with_header("Upgrade", "h2c, websocket"), {}),
    "upgrade_bad_format": (with_header("Upgrade", "web socket"), {}),
    "connection_missing": (with_header("Connection", None), {}),
    "connection_close": (with_header("Connection", "close"), {}),
    "connection_keep_alive_upgrade": (with_header("Connection", "keep-alive, Upgrade"), {}),
    "connection_bad_format": (with_header("Connection", "Upgrade;"), {}),
    "connection_empty": (with_header("Connection", ""), {}),
    "connection_empty_beside_another": (with_line("Connection: ,"), {}),
    # Sec-WebSocket-Key and -Version
    "key_missing": (with_header(KEY, None), {}),
    "key_empty": (with_header(KEY, ""), {}),
    "key_short": (with_header(KEY, "c2hvcnQ="), {}),
    "key_no_base64": (with_header(KEY, "!" * 24), {}),
    "key_twice": (with_line(f"{KEY}: dGhlIHNhbXBsZSBub25jZQ=="), {}),
    "version_missing": (with_header("Sec-WebSocket-Version", None), {}),
    "version_8": (with_header("Sec-WebSocket-Version", "8"), {}),
    "version_junk": (with_header("Sec-WebSocket-Version", "x"), {}),
    "version_twice": (with_line("Sec-WebSocket-Version: 13"), {}),
    # Origin
    "origin_unchecked": (with_header("Origin", "https://any.example"), {}),
    "origin_right": (with_header("Origin", "https://a.example"), {"origins": ["https://a.example"]}),
    "origin_wrong": (with_header("Origin", "https://b.example"), {"origins": ["https://a.example"]}),
    "origin_missing": (REQUEST, {"origins": ["https://a.example"]}),
    "origin_none_allowed": (REQUEST, {"origins": [None]}),
    "origin_pattern": (
        with_header("Origin", "https://b.a.example"),
        {"origins": [re.compile(r"https://.*\.a\.example")]},
    ),
    "origin_pattern_is_for_all": (
        with_header("Origin", "https://b.a.example.evil"),
        {"origins": [re.compile(r"https://.*\.a\.example")]},
    ),
    "origin_twice": (
        with_line("Origin: https://a.example\r\nOrigin: https://a.example"),
        {"origins": ["https://a.example"]},
    ),
    # Subprotocols
    "subprotocol_first_of_ours": (with_header("Sec-WebSocket-Protocol", "superchat, chat"), SUBPROTOCOLS),
    "subprotocol_one": (with_header("Sec-WebSocket-Protocol", "superchat"), SUBPROTOCOLS),
    "subprotocol_two_lines": (
        with_line("Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: superchat"),
        SUBPROTOCOLS,
    ),
    "subprotocol_none_in_common": (with_header("Sec-WebSocket-Protocol", "other"), SUBPROTOCOLS),
    "subprotocol_not_offered": (REQUEST, SUBPROTOCOLS),
    "subprotocol_not_supported": (with_header("Sec-WebSocket-Protocol", "chat"), {}),
    "subprotocol_bad_format": (with_header("Sec-WebSocket-Protocol", "a b"), SUBPROTOCOLS),
    "subprotocol_empty": (with_header("Sec-WebSocket-Protocol", ""), SUBPROTOCOLS),
    # Extensions
    "deflate_off": (with_header(OFFER, "permessage-deflate"), {}),
    "deflate_not_offered": (REQUEST, DEFLATE),
    "deflate": (with_header(OFFER, "permessage-deflate"), DEFLATE),
    "deflate_client_bits": (with_header(OFFER, "permessage-deflate; client_max_window_bits"), DEFLATE),
    "deflate_client_bits_10": (with_header(OFFER, "permessage-deflate; client_max_window_bits=10"), DEFLATE),
    "deflate_server_bits_10": (with_header(OFFER, "permessage-deflate; server_max_window_bits=10"), DEFLATE),
    "deflate_server_bits_15": (with_header(OFFER, "permessage-deflate; server_max_window_bits=15"), DEFLATE),
    "deflate_server_bits_8": (with_header(OFFER, "permessage-deflate; server_max_window_bits=8"), DEFLATE),
    "deflate_server_bits_missing": (with_header(OFFER, "permessage-deflate; server_max_window_bits"), DEFLATE),
    "deflate_server_no_context": (with_header(OFFER, "permessage-deflate; server_no_context_takeover"), DEFLATE),
    "deflate_client_no_context": (with_header(OFFER, "permessage-deflate; client_no_context_takeover"), DEFLATE),
    "deflate_quoted": (with_header(OFFER, 'permessage-deflate; client_max_window_bits="12"'), DEFLATE),
    "deflate_unknown_parameter": (with_header(OFFER, "permessage-deflate; frob"), DEFLATE),
    "deflate_repeated_parameter": (
        with_header(OFFER, "permessage-deflate; client_max_window_bits; client_max_window_bits"),
        DEFLATE,
    ),
    "deflate_second_offer": (with_header(OFFER, "permessage-deflate; frob, permessage-deflate"), DEFLATE),
    "deflate_offered_twice": (with_header(OFFER, "permessage-deflate, permessage-deflate"), DEFLATE),
    "extension_unknown": (with_header(OFFER, "x-frob; a=b"), DEFLATE),
    "extension_bad_format": (with_header(OFFER, "permessage-deflate; ="), DEFLATE),
    "extension_empty": (with_header(OFFER, ""), DEFLATE),
    # What is no request
    "junk": (b"frob\r\n\r\n", {}),
    "tls_on_a_plain_port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", {}),
    "header_without_colon": (with_line("frob"), {}),
    "header_name_with_space": (with_line("X Y: z"), {}),
    "header_folded": (with_line("X-Folded: a\r\n b"), {}),
    "header_with_nul": (with_line("X-Nul: a\0b"), {}),
    "line_too_long": (request(path="/" + "a" * 9000), {}),
    "header_too_long": (with_line("X-Long: " + "a" * 9000), {}),
    "too_many_headers": (with_line("\r\n".join(f"X-{n}: 1" for n in range(130))), {}),
    "with_a_body": (with_line("Content-Length: 3") + b"abc", {}),
    "with_an_empty_body": (with_line("Content-Length: 0"), {}),
    "with_a_chunked_body": (with_line("Transfer-Encoding: chunked"), {}),
    "other_server_header": (REQUEST, {"server_header": "Frob/1"}),
}


def answers(raw: bytes, options: dict[str, Any]) -> Any:
    async def ask(lib: Any, record: Record) -> None:
        async def handler(websocket: Any) -> None:
            record("request", websocket.request.path, list(websocket.request.headers.raw_items()))
            record("response", websocket.response.status_code, websocket.response.reason_phrase)
            record("subprotocol", websocket.subprotocol)
            record("extensions", [repr(each) for each in websocket.protocol.extensions])
            await idle(websocket)

        async with serving(lib, handler, **options) as server:
            peer = await server.raw()
            head, _ = await peer.answer(raw)
            record("answer", head)
            if "101" in head[0][0]:
                peer.close()
                record("frames", await peer.rest())

    return ask


for name, (raw, options) in REQUESTS.items():
    add(f"handshake_{name}", answers(raw, options))
