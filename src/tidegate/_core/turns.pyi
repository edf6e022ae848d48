import asyncio

SECONDS: float
"""Of one connection's work in a turn of the event loop."""

BYTES: int
"""That are read from one connection in a turn."""

class TurnTaker: ...

class Turns:
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
