"""The routes of the admin address: one table from paths to functions of a request's headers.

What must not live here: sockets and signals (main.py), what is measured (metrics), what is healthy (health.py).
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Collection
from email.utils import formatdate
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from .._core.scoreboard import Scoreboard
from ..datastructures import Headers
from ..http11 import Request, Response
from ..metrics import expose
from . import health
from .authorization import Authorization
from .publish import Publisher
from .status import status

if TYPE_CHECKING:
    from ..asyncio.request_body import BodyConnection

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"

LIVE = "/live"
"""The path of the WebSocket that sends the state of the daemon: see feed.py."""

PUBLISH = "/publish"
"""The path that takes messages, where it is on."""

OPEN = ("/", "/livez", "/readyz")
"""Paths that need no token."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, Content-Type, body."""


class Routes:
    """Answers the requests of the admin address: a `process_request` of `serve()`.

    An answer is made of one consistent read; if there is none, because the supervisor died as it wrote, it is 503.

    Parameters:
        scoreboard: of the daemon.
        access: decides who may ask.
        busy: returns whether /live has as many listeners as it may have.
        before: the admin processes before this one, whose processor time counts as well.
        publish: answers POST /publish, and decides who may; None: there is no such path.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        access: Authorization,
        busy: Callable[[], bool] = lambda: False,
        before: Collection[int] = (),
        publish: tuple[Publisher, Authorization] | None = None,
    ) -> None:
        self._scoreboard = scoreboard
        self._publish = publish
        self._access, self._busy = access, busy
        self._registry = expose.registry(scoreboard, before)
        self._page = files(__package__).joinpath("index.html").read_bytes()
        self._policy = _policy(self._page)
        if self._access.needs_token:
            self._page = self._page.replace(b"<html", b"<html data-token", 1)
        self._table: dict[str, Callable[[Request], Answer]] = {
            "/": self.page,
            "/metrics": self.metrics,
            "/status": self.status,
            "/livez": self.livez,
            "/readyz": self.readyz,
        }

    def __call__(self, connection: Any, request: Request) -> Response | Awaitable[Response] | None:
        """Answer GET and HEAD, and POST /publish. Others are left to the handshake, which allows none of them."""
        path = request.path.partition("?")[0]
        if path == PUBLISH and self._publish is not None:
            return self._answer_publish(connection, request, *self._publish)
        answer = self._table.get(path, self.not_found)
        refusal = None if path in OPEN else self._access.refusal(request)
        try:
            if refusal is not None:
                return self._respond(request, _text(*refusal))
            if request.method not in ("GET", "HEAD"):
                return None
            if path == LIVE:
                if self._busy():
                    return self._respond(request, _text(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many listeners"))
                return None  # let the handshake go on
            code, kind, body = answer(request)
        except TimeoutError as exc:
            code, kind, body = _text(HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
        return self._respond(request, (code, kind, body))

    async def _answer_publish(
        self, connection: BodyConnection, request: Request, publisher: Publisher, access: Authorization
    ) -> Response:
        """Answer a request to publish."""
        refusal = access.refusal(request)
        if refusal is not None:
            return self._respond(request, _text(*refusal))
        if request.method != "POST":
            response = self._respond(request, _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{PUBLISH} takes POST"))
            response.headers["Allow"] = "POST"
            return response
        status, body, retry_after = await publisher.answer(connection, request)
        response = self._respond(request, (status, JSON, body))
        if retry_after is not None:
            response.headers["Retry-After"] = str(math.ceil(retry_after))
        return response

    def _respond(self, request: Request, answer: Answer) -> Response:
        code, kind, body = answer
        headers = Headers(
            {
                "Date": formatdate(usegmt=True),
                "Connection": "close",
                "Content-Length": str(len(body)),
                "Content-Type": kind,
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
        )
        if code is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="tidegate"'
        if kind == HTML:
            headers["Content-Security-Policy"] = self._policy
            headers["Referrer-Policy"] = "no-referrer"
        return Response(code.value, code.phrase, headers, b"" if request.method == "HEAD" else body)

    def page(self, request: Request) -> Answer:
        return HTTPStatus.OK, HTML, self._page

    def metrics(self, request: Request) -> Answer:
        kind, text = expose.expose(self._registry, ",".join(request.headers.get_all("Accept")))
        return HTTPStatus.OK, kind, text

    def status(self, request: Request) -> Answer:
        found = status(self._scoreboard.read(), time.time())
        return HTTPStatus.OK, JSON, msgspec.json.format(msgspec.json.encode(found)) + b"\n"

    def livez(self, request: Request) -> Answer:
        return _verdict(health.alive(self._scoreboard.read()))

    def readyz(self, request: Request) -> Answer:
        return _verdict(health.ready(self._scoreboard.read()))

    def not_found(self, request: Request) -> Answer:
        return _text(HTTPStatus.NOT_FOUND, f"there is nothing here; ask for {', '.join((*self._table, LIVE))}")


def _policy(page: bytes) -> str:
    """Return the policy of the page: it may run its own script and style, and ask this address (CSP level 3)."""

    def hashes(tag: bytes) -> str:
        parts = re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)
        return " ".join(f"'sha256-{b64encode(hashlib.sha256(part).digest()).decode()}'" for part in parts) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes(b'script')}; style-src {hashes(b'style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _verdict(verdict: tuple[bool, str]) -> Answer:
    yes, why = verdict
    return _text(HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE, why)


def _text(code: HTTPStatus, line: str) -> Answer:
    return code, TEXT, f"{line}\n".encode()
