"""Is not imported before there is a file "go"."""

from __future__ import annotations

import os
import time

while not os.path.exists("go"):
    time.sleep(0.01)


async def handler(websocket): ...
