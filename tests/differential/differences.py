"""Where tidegate differs from `websockets` and is meant to: scenario, subjects, reason.

What must not live here: differences without a reason that a user of tidegate would accept.
"""

from __future__ import annotations

VERSION = "426 names the version that we speak (RFC 6455 4.4), whatever was wrong with the upgrade"
ANSWERED = "what is no request of HTTP/1.1 is told so by a response; they close without a word"
SERVER = "every response has the Server header"

SENTENCES = "what is wrong with the HTTP of a message is said in our own words"
REDIRECTS = "ten redirects are followed, as `more than 10 redirects` says; they follow nine"


HOST = "a request says for whom it is, once and in the form of a host, or is bad (RFC 9112 3.2)"
EMPTY = "a list may be empty (RFC 9110 5.6.1), which is as if it were not there"


def each(names: str, subjects: str, reason: str) -> dict[str, tuple[set[str], str]]:
    """The same for several scenarios."""
    return {name: (set(subjects.split()), reason) for name in names.split()}


DIFFERENCES: dict[str, tuple[set[str], str]] = {
    **each(
        "handshake_upgrade_missing handshake_upgrade_h2c handshake_upgrade_two handshake_connection_missing"
        " handshake_connection_close handshake_version_8 handshake_version_junk",
        "answer",
        VERSION,
    ),
    **each(
        "handshake_http_2_0 handshake_junk handshake_tls_on_a_plain_port handshake_header_without_colon"
        " handshake_header_name_with_space handshake_header_folded handshake_header_with_nul handshake_with_a_body"
        " handshake_with_a_chunked_body",
        "answer log",
        ANSWERED,
    ),
    **each("handshake_line_too_long handshake_header_too_long handshake_too_many_headers", "answer", SERVER),
    **each(
        "handshake_no_host handshake_two_hosts handshake_host_empty handshake_host_with_space",
        "answer extensions request response subprotocol",
        HOST,
    ),
    **each("handshake_connection_empty", "answer", EMPTY),
    **each(
        "handshake_extension_empty handshake_connection_empty_beside_another",
        "answer extensions request response subprotocol",
        EMPTY,
    ),
    **each(
        "process_request_own_response process_request_own_response_async",
        "answer",
        "a response after which we close says Connection: close (RFC 9112 9.6)",
    ),
    **each(
        "too_many_fragments",
        "recv",
        "small fragments are joined, and `max_size` bounds a message however many it has; theirs has 4,096 at most",
    ),
    **each("handshake_method_unknown", "answer", "a method that no standard knows is no request: 400 and not 405"),
    **each(
        "process_request_returns_junk process_request_returns_junk_async process_response_returns_junk"
        " process_response_returns_junk_async",
        "answer body log",
        "a hook that returns nonsense has failed: 500 and an error in the log; they close without a word",
    ),
    **each("send_memoryview_with_steps", "frames log send", "views with gaps can be sent; theirs end the connection"),
    **each(
        "send_surrogate",
        "frames log send",
        "a str that UTF-8 cannot hold is the caller's error and ends nothing",
    ),
    **each(
        "send_that_fails_within_a_message",
        "next",
        "the error stays the cause of the end",
    ),
    **each("recv_reserved_opcode recv_reserved_control_opcode", "recv", "`invalid opcode` has no cause of its own"),
    **each(
        "recv_streaming_invalid_utf8 recv_streaming_truncated_utf8",
        "end frames",
        "positions of errors in a text are counted from the start of the message",
    ),
    **each(
        "recv_streaming_closed_within",
        "end frames",
        "a close frame in the middle of a message is answered as ever (Autobahn 7.1.5)",
    ),
    **each(
        "send_of_fragments_cancelled",
        "frames state",
        "a message that was begun and cannot be ended ends the connection; theirs stays open and can send no more",
    ),
    **each(
        "closed_within_a_message",
        "frames recv send ping pong",
        "a close frame in the middle of a message is answered as ever (Autobahn 7.1.5)",
    ),
    **each(
        "end_of_stream_within_a_frame",
        "recv send ping pong",
        "the end of the stream is unexpected; how much of a frame was missing is not counted",
    ),
    **each(
        "handler_lets_connection_closed_escape",
        "log",
        "a client that left is no failure of a handler: thousands of tracebacks when a network breaks",
    ),
    **each(
        "client_gets_999 client_gets_http_1_0 client_gets_http_2 client_gets_status_of_two_digits"
        " client_gets_status_of_letters client_gets_junk client_gets_header_without_colon client_gets_bad_length"
        " client_gets_nothing client_gets_half_a_head client_gets_half_a_body client_gets_long_header"
        " client_gets_many_headers client_gets_long_body",
        "cause",
        SENTENCES,
    ),
    **each(
        "client_asks_headers_override_host",
        "asked",
        "the caller's Host is in the place of ours; with two, servers reject the request (RFC 9112 3.2)",
    ),
    **each("client_gets_long_status_line", "raised", SENTENCES),
    **each(
        "client_gets_empty_reason_without_space",
        "raised response cause",
        "the space before a reason that is empty may be missing: servers do that, and nothing else can be meant",
    ),
    **each("client_redirected_ten_times", "asked raised", REDIRECTS),
    **each("client_redirected_eleven_times", "asked", REDIRECTS),
    **each("client_mistake_port", "raised", "a port out of range is an invalid URI, with the ValueError as cause"),
    **each(
        "server_close_at_once", "closed", "a server that was closed has no sockets; theirs has them for an iteration"
    ),
    **each(
        "server_close_before_a_request",
        "answer log",
        "a client that has not asked yet is told 503 by a closing server; theirs keeps it until open_timeout",
    ),
    **each("route_parameters", "frames", "parameters of a route are percent-decoded, as werkzeug expects"),
    **each("basic_auth_mistakes", "raised", "the error says what is right, and keeps credentials out of tracebacks"),
    **each("server_times_out_half_a_request", "answer log", "whoever began a request is told 408"),
}
