"""OpenTelemetry: a span for each request, each connection, and each of its events, by the SDK's own middleware.

In earnest the exporter is of opentelemetry-exporter-otlp, in a BatchSpanProcessor; here /spans shows what it would get.
"""

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

exporter = InMemorySpanExporter()
provider = TracerProvider(resource=Resource.create({"service.name": "chat"}))
provider.add_span_processor(SimpleSpanProcessor(exporter))


async def page(request):
    return JSONResponse({"hello": "world"})


async def echo(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


async def spans(request):
    found = exporter.get_finished_spans()
    return JSONResponse([[f"{span.context.trace_id:032x}", span.name, dict(span.attributes)] for span in found])


application = Starlette(routes=[Route("/", page), Route("/spans", spans), WebSocketRoute("/ws", echo)])
app = OpenTelemetryMiddleware(application, tracer_provider=provider, excluded_urls="spans")
