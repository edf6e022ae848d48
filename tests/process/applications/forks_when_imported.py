"""Forks from the supervisor while it is imported, and from the admin process a second after that has begun."""

from __future__ import annotations

import os
import signal
import threading
import time

from setproctitle import getproctitle


def fork():
    if not os.fork():
        time.sleep(600)
        os._exit(0)


def later():
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # of the moment in which the thread began
    if "admin" in getproctitle():
        fork()


def in_a_child():
    timer = threading.Timer(1, later)
    timer.daemon = True
    timer.start()


fork()  # of the supervisor
os.register_at_fork(after_in_child=in_a_child)


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
