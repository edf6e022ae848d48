"""Tells the secrets of a request in its log, in an answer and in an exception."""

from __future__ import annotations

import logging

from tidegate import App


async def handler(websocket):
    logging.info("Cookie: %s", websocket.request.headers["Cookie"])
    raise ValueError("no " + websocket.request.headers["Authorization"] + " for you")


def answer(connection, request, response):
    response.headers["Set-Cookie"] = request.headers["Cookie"]


app = App(handler, process_response=answer)
