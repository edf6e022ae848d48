"""What the admin address answers: one table from paths to functions of a request's headers.

What must not live here: sockets and signals (main), what is measured (metrics) and judged (health).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import msgspec

from .._core.scoreboard import Scoreboard
from ..datastructures import Headers
from ..http11 import Request, Response
from ..metrics import expose
from . import health
from .status import status

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"

LIVE = "/live"
"""Where a WebSocket is told what happens: see feed."""

Answer = tuple[HTTPStatus, str, bytes]
"""Status, Content-Type, body."""


class Answers:
    """Answers the requests of the admin address: a `process_request` of `serve()`.

    An answer is made of one consistent read; while there is none, because the supervisor died as it wrote, it is 503.
    """

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        self._registry = expose.registry(scoreboard)
        self._page = files(__package__).joinpath("index.html").read_bytes()
        self._table: dict[str, Callable[[Request], Answer]] = {
            "/": self.page,
            "/metrics": self.metrics,
            "/status": self.status,
            "/livez": self.livez,
            "/readyz": self.readyz,
        }

    def __call__(self, connection: Any, request: Request) -> Response | None:
        """Answer GET and HEAD. Every other method is left to the handshake, which allows none of them."""
        if request.method not in ("GET", "HEAD"):
            return None
        if request.path.partition("?")[0] == LIVE:
            return self.live(request)
        answer = self._table.get(request.path.partition("?")[0], self.not_found)
        try:
            code, kind, body = answer(request)
        except TimeoutError as exc:
            code, kind, body = _text(HTTPStatus.SERVICE_UNAVAILABLE, str(exc))
        headers = Headers(
            {
                "Date": formatdate(usegmt=True),
                "Connection": "close",
                "Content-Length": str(len(body)),
                "Content-Type": kind,
                "Cache-Control": "no-store",
            }
        )
        return Response(code.value, code.phrase, headers, b"" if request.method == "HEAD" else body)

    def live(self, request: Request) -> Response | None:
        """Let the handshake go on, for it is the only thing to be had there."""
        return None

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
        return _text(HTTPStatus.NOT_FOUND, f"there is nothing here; there is {', '.join((*self._table, LIVE))}")


def _verdict(verdict: tuple[bool, str]) -> Answer:
    yes, why = verdict
    return _text(HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE, why)


def _text(code: HTTPStatus, line: str) -> Answer:
    return code, TEXT, f"{line}\n".encode()
