"""The life of a worker in a process of its own, without a supervisor, for test_main.py.

What must not live here: tests; what they tell the worker (test_main.py).
"""

from __future__ import annotations

import json
import socket
from typing import Any

from tidegate import logs
from tidegate._core.scoreboard import Scoreboard
from tidegate.config.schema import Config
from tidegate.supervisor.signals import Signals
from tidegate.worker import main


def live(descriptors: str, row: str, settings: str, last_words: str) -> int:
    """Be the worker of slot 3, as a child that has been forked is: its exit status.

    `descriptors` are those of the scoreboard, the pipe and the listening sockets, as JSON like the settings.
    """
    scoreboard, pipe, *listening = json.loads(descriptors)
    given: dict[str, Any] = json.loads(settings)
    main.LAST_WORDS = float(last_words)
    logs.begin("supervisor", "info")
    signals = Signals()
    signals.catch()
    signals.block()
    signals.settle()
    sockets = [socket.socket(fileno=number) for number in listening]
    counted = Scoreboard.attach(scoreboard).row(int(row))
    return main.run(Config(**given), 3, sockets, counted, socket.socket(fileno=pipe))
