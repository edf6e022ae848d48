"""The lifespan of an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tidegate.asyncio.lifespan import LifespanFailed, lifespan


class Application:
    """Answers as it is told, and notes what it was asked."""

    def __init__(self, startup: str = "complete", shutdown: str = "complete", message: str = "") -> None:
        self.answers = {"lifespan.startup": startup, "lifespan.shutdown": shutdown}
        self.message = message
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["database"] = "open"
        for _ in range(2):
            kind = (await receive())["type"]
            self.asked.append(kind)
            await send({"type": f"{kind}.{self.answers[kind]}", "message": self.message})


async def test_start_up_and_shutdown() -> None:
    application, state = Application(), {}  # type: ignore[var-annotated]
    async with lifespan(application, state):
        assert application.asked == ["lifespan.startup"]
        assert state == {"database": "open"}
    assert application.asked == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_start_up_that_fails() -> None:
    with pytest.raises(LifespanFailed, match=r"^its startup failed: no database$"):
        async with lifespan(Application(startup="failed", message=" no database\n"), {}):
            raise AssertionError("it serves")


async def test_a_shutdown_that_fails() -> None:
    with pytest.raises(LifespanFailed, match=r"^its shutdown failed$"):
        async with lifespan(Application(shutdown="failed"), {}):
            pass


async def test_what_the_block_raises_is_raised_and_the_task_ends() -> None:
    application = Application()
    with pytest.raises(ZeroDivisionError):
        async with lifespan(application, {}):
            raise ZeroDivisionError
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("error", [KeyError("http"), AssertionError(), None])
async def test_an_application_without_one(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if error is not None:
            raise error

    with caplog.at_level(logging.INFO, "tidegate"):
        async with lifespan(application, {}):
            pass
    assert "the application has no lifespan" in caplog.records[0].getMessage()
    caplog.clear()


async def test_one_that_fails_while_it_serves_is_told_at_the_end() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with lifespan(application, {}):
            await asyncio.sleep(0)


async def test_events_that_do_not_fit() -> None:
    errors: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for event in (
            "lifespan.shutdown.complete",
            "http.response.start",
            "lifespan.startup.complete",
            "lifespan.startup.failed",
        ):
            await receive() if event.startswith("http") else None
            try:
                await send({"type": event})
            except RuntimeError as exc:
                errors.append(str(exc))
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with lifespan(application, {}):
        pass
    assert [error.split("'")[1] for error in errors] == [
        "lifespan.shutdown.complete",
        "http.response.start",
        "lifespan.startup.failed",
    ]


async def test_it_is_cancelled_with_the_worker() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def live() -> None:
        async with lifespan(application, {}):
            raise AssertionError("it serves")

    task = asyncio.create_task(live())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
