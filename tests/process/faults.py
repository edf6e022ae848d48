"""`tidegate serve` whose hubs can be told to be killed within a record of the journal.

    command    what starts it
    arm        have the present hub killed after so many more bytes of records

What must not live here: tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.support import programs
from tidegate.cli import main
from tidegate.hub.main import Hub


def command(daemon_command: list[str], file: Path) -> list[str]:
    """The command of a daemon (python -m tidegate ...) so changed; `file` is where hubs look."""
    return programs.program(serve, str(file), *daemon_command[3:])


def arm(hub: int, file: Path, after: int) -> None:
    """Have a hub killed after so many more bytes of records."""
    file.write_text(str(after))
    with contextlib.suppress(ProcessLookupError):  # it has just been replaced
        while file.exists():  # it may have begun just now, and not listen yet
            os.kill(hub, signal.SIGUSR2)
            time.sleep(0.01)


def serve(file: str, *arguments: str) -> Any:
    """Run the command line; each hub that it forks listens to `arm()`."""
    live = Hub.live

    def live_until_armed(hub: Hub) -> None:
        def armed(number: int, frame: object) -> None:
            with contextlib.suppress(FileNotFoundError):
                hub.journal.fault = int(Path(file).read_text())
                Path(file).unlink()

        signal.signal(signal.SIGUSR2, armed)
        live(hub)

    Hub.live = live_until_armed  # type: ignore[method-assign]
    return main(list(arguments))
