"""Where tidegate differs from `websockets` and is meant to: scenario, subjects, reason.

What must not live here: differences without a reason that a user of tidegate would accept.
"""

from __future__ import annotations

VERSION = "426 names the version that we speak (RFC 6455 4.4), whatever was wrong with the upgrade"
ANSWERED = "what is no request of HTTP/1.1 is told so by a response; they close without a word"
SERVER = "every response has the Server header"


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
    **each("handshake_method_unknown", "answer", "a method that no standard knows is no request: 400 and not 405"),
}
