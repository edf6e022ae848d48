"""The lifespan of an ASGI application: start-up before a worker serves, shutdown after its last connection.

What must not live here: lifespans of handlers (app.py), which exit status a failure is (worker/main.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .scope import Application, Event

__all__ = ["LifespanFailed", "lifespan"]

logger = logging.getLogger("tidegate.server")


class LifespanFailed(Exception):
    """The application reports that its start-up, or its shutdown, has failed.

    Attributes:
        message: the application's own; "" if it has none.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(stage, message)
        self.stage, self.message = stage, message

    def __str__(self) -> str:
        return f"its {self.stage} failed" + (f": {self.message}" if self.message else "")


class _Lifespan:
    """The two conversations, and the task of the application that has them.

    Parameters:
        application: the ASGI application.
        state: what it shares with the scopes of connections and requests.
    """

    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self.state = state
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._answer: asyncio.Future[Event] | None = None
        self._stage = "startup"
        self.task = self._loop.create_task(self._run(application), name="ASGI lifespan")

    async def _run(self, application: Application) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await application(scope, self._receive, self._send)

    async def _receive(self) -> Event:
        return {"type": await self._events.get()}

    async def _send(self, event: Event) -> None:
        answers = (f"lifespan.{self._stage}.complete", f"lifespan.{self._stage}.failed")
        kind = event["type"]
        if kind not in answers or self._answer is None or self._answer.done():
            raise RuntimeError(f"unexpected event {kind!r} in the {self._stage} of a lifespan")
        self._answer.set_result(event)

    async def say(self, stage: str) -> bool:
        """Say that a stage begins; return False if the application ended without an answer.

        Raises:
            LifespanFailed: it answers that the stage has failed.
        """
        self._stage = stage
        self._answer = self._loop.create_future()
        self._events.put_nowait(f"lifespan.{stage}")
        waited: list[asyncio.Future[Any]] = [self._answer, self.task]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            return False
        event = self._answer.result()
        if event["type"].endswith("failed"):
            await asyncio.wait([self.task], timeout=1)
            raise LifespanFailed(stage, str(event.get("message") or "").strip())
        return True


@asynccontextmanager
async def lifespan(application: Application, state: dict[str, Any]) -> AsyncIterator[None]:
    """Be the lifespan of an application.

    An application that ends or raises before it answers the start-up does not support lifespans, as the specification
    has it, and is served without one.

    Args:
        application: the ASGI application.
        state: gets what the application puts into the state of its lifespan.

    Raises:
        LifespanFailed: it answers that its start-up, or its shutdown, has failed.
    """
    life = _Lifespan(application, state)
    try:
        if not await life.say("startup"):
            error = life.task.exception()
            logger.info("the application has no lifespan%s", "" if error is None else f" ({error!r})")
            yield
            return
        yield
        if not life.task.done():
            await life.say("shutdown")
            await asyncio.wait([life.task])
        life.task.result()
    finally:
        if not life.task.done():
            life.task.cancel()
            await asyncio.wait([life.task])
        elif not life.task.cancelled():
            life.task.exception()
