"""Forks in each way that Python has, as its clients ask for."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

children = []


def stay(*_):
    time.sleep(600)


def fork(how):
    if how == "os":
        if not (pid := os.fork()):
            stay()
            os._exit(0)
        return pid
    if how == "program":
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False))
    else:
        children.append(multiprocessing.get_context(how).Process(target=stay))
        children[-1].start()
    return children[-1].pid


async def handler(websocket):
    async for message in websocket:
        how, _, what = message.partition(" ")
        if how == "stray":
            pid = os.fork()
            if not pid:
                return
            message = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        elif how == "exit":
            pid = os.fork()
            if not pid:
                sys.exit(int(what))
            message = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        elif how == "fork":
            message = str(fork(what))
        await websocket.send(message)
