"""Secrets in logs: credentials of clients are masked, at every level of every log.

    redact           in a text: values of headers, of parameters of URLs, of URLs' userinfo, and tokens
    redact_trace     in a traceback, whose lines of source code stay as they are

Names and schemes stay: they tell what was there. Not every secret can be recognized; those that browsers, proxies and
common libraries send are. What must not live here: logging.
"""

from __future__ import annotations

import re

__all__ = ["MASK", "redact", "redact_trace"]

MASK = "***"

_SCHEME = r"(?:basic|bearer|digest|negotiate|token|hmac)"
# RFC 9110 11.6.2 and 11.7.2, RFC 6265 4, and what APIs use instead; the rest of the line is the value.
_header = re.compile(
    rf"\b((?:proxy-)?authorization|(?:set-)?cookie|(?:x-)?(?:api|access|auth)-?(?:key|token)|x-csrf-?token)"
    rf"(['\"]?\s*:\s*['\"]?)({_SCHEME}\s+(?=\S))?[^\r\n]+",
    re.IGNORECASE,
)
# Elsewhere, as in the subprotocols of browsers, which can set no header. Prose has neither digits nor such signs.
_credentials = re.compile(rf"\b({_SCHEME}[ .])(?=[^\s,;]*[0-9=+/])[\w.~+/=-]{{8,}}", re.IGNORECASE)
_parameter = re.compile(
    r"([?&;][^=&;\s#]*(?:token|secret|passw|pwd|key|auth|sig|session|sid|jwt|code|credential)[^=&;\s#]*=)[^&;\s#'\"]+",
    re.IGNORECASE,
)
_userinfo = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@?#'\"]+@", re.IGNORECASE)


def redact(text: str) -> str:
    """Return the text without its secrets."""
    if ":" in text:
        text = _header.sub(rf"\1\2\3{MASK}", text)
        text = _userinfo.sub(rf"\1{MASK}@", text)
    if "=" in text:
        text = _parameter.sub(rf"\1{MASK}", text)
    return _credentials.sub(rf"\1{MASK}", text)


def redact_trace(text: str) -> str:
    """Return a traceback without secrets: in what exceptions say, and not in the indented lines of code."""
    return "\n".join(line if line.startswith(" ") else redact(line) for line in text.split("\n"))
