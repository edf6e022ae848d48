"""Changes whatever a process has but one of, while it is imported; clients are told what they find."""

from __future__ import annotations

import json
import locale
import os
import signal
import socket
import sys

socket.setdefaulttimeout(0.2)
os.makedirs("elsewhere", exist_ok=True)
os.chdir("elsewhere")
os.umask(0o077)
locale.setlocale(locale.LC_ALL, "C")
sys.setrecursionlimit(400)
os.environ["ADDED"] = "by the application"
os.environ.pop("REMOVED", None)
signal.signal(signal.SIGUSR2, lambda *_: None)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def handler(websocket):
    async for _ in websocket:
        found = {
            "timeout": socket.getdefaulttimeout(),
            "directory": os.path.basename(os.getcwd()),
            "umask": os.umask(0o077),
            "locale": locale.setlocale(locale.LC_ALL),
            "recursion": sys.getrecursionlimit(),
            "added": os.environ.get("ADDED"),
            "removed": os.environ.get("REMOVED"),
            "handled": callable(signal.getsignal(signal.SIGUSR2)),
            "pipe": signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,
        }
        await websocket.send(json.dumps(found))
