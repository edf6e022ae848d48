"""The client behind a reverse proxy, from its requests: X-Forwarded-For and -Proto, or Forwarded (RFC 7239).

Any client can send these headers. Each trusted proxy appends the address that the request came from, so they are read
from the right, up to the first hop that is not trusted, which may have made up what stands left of it. Only the header
that the proxies are known to write is read: most of them pass the other one on as the client sent it.

What must not live here: whether the peer itself is trusted (asyncio/admission.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .networks import Networks, host_of

__all__ = ["FORWARDED", "SCHEME_HEADERS", "X_FORWARDED_FOR", "client_of", "scheme_of"]

X_FORWARDED_FOR = "x-forwarded-for"
FORWARDED = "forwarded"
SCHEME_HEADERS = {X_FORWARDED_FOR: "x-forwarded-proto", FORWARDED: FORWARDED}
"""The header that tells the scheme, beside the one that tells the address."""

# RFC 7239, 4. A parameter's value is a token or a quoted string; a forwarded-element has parameters between semicolons.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_PARAMETER = rf"{_TOKEN}={_VALUE}"
_element = re.compile(rf"[ \t]*((?:{_PARAMETER})?(?:;(?:{_PARAMETER})?)*)[ \t]*(?:,|$)")
_parameter = re.compile(rf"(?:^|;)({_TOKEN})=({_VALUE})")  # each in turn: a quoted value may look like another
_quoted_pair = re.compile(r"\\(.)")


def client_of(header: str, values: Sequence[str], trusted: Networks) -> tuple[str, int] | None:
    """Return address and port (0: not told) of the client that trusted proxies speak for.

    It is the right-most hop that is no trusted proxy itself, or the left-most of them if all are. A hop that cannot be
    read (an identifier, nonsense) ends the search: then it is the last proxy that could.

    Args:
        header: X_FORWARDED_FOR or FORWARDED.
        values: values of that header, in order.
        trusted: proxies that tell the truth. The peer must be one of them.

    Returns:
        None if nothing usable is told: the client is the peer.
    """
    hops = list(_elements(values) if header == FORWARDED else _items(values))
    found = None
    for hop in reversed(hops):
        place = None if hop is None else host_of(hop)
        if place is None:
            break
        found = place
        if place[0] not in trusted:
            break
    return found


def scheme_of(header: str, values: Sequence[str]) -> str | None:
    """Return the scheme by which the client came to the proxy that is the peer, "http" or "https".

    Args:
        header: X_FORWARDED_FOR or FORWARDED.
        values: values of its header in `SCHEME_HEADERS`, in order.

    Returns:
        None if it is not told.
    """
    last = values[-1].rpartition(",")[2].strip(" \t") if values else ""
    if header == FORWARDED:
        told = [value for name, value in _parameter.findall(last) if name.lower() == "proto"]
        last = _unquoted(told[0]) if len(told) == 1 else ""
    return _SCHEMES.get(last.lower())


_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


def _items(values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (item.strip(" \t") for item in value.split(","))


def _elements(values: Sequence[str]) -> Iterator[str | None]:
    """Return the `for` of each element; None where there is none, or where the grammar ends."""
    for value in values:
        place = 0
        while place < len(value):
            match = _element.match(value, place)
            if match is None:
                # What this proxy meant is not known, and so neither is what stands before it.
                yield None
                break
            place = match.end()
            told = [value for name, value in _parameter.findall(match[1]) if name.lower() == "for"]
            # A parameter may be there once (RFC 7239, 4): of two, one may be the client's.
            yield _unquoted(told[0]) if len(told) == 1 else None


def _unquoted(value: str) -> str:
    return _quoted_pair.sub(r"\1", value[1:-1]) if value.startswith('"') else value
