"""Sentry: what fails in a request or a connection is an event, by the SDK's own middleware.

In earnest init() has a dsn and no transport; here /events shows what Sentry would get.
"""

import sentry_sdk
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

reported = []


class InMemory(Transport):
    def capture_envelope(self, envelope):
        reported.append(envelope.get_event())


sentry_sdk.init(dsn="https://key@sentry.invalid/1", transport=InMemory, auto_enabling_integrations=False)


async def fail(request):
    raise LookupError("no such page")


async def divide(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(str(1 / int(text)))


async def events(request):
    return JSONResponse(
        [[event["exception"]["values"][-1]["type"], event["request"]["url"]] for event in reported if event]
    )


application = Starlette(routes=[Route("/fail", fail), Route("/events", events), WebSocketRoute("/divide", divide)])
app = SentryAsgiMiddleware(application)
