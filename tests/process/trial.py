"""A daemon for trials of its channels, by the numbers of a seed, and what a page of it must have seen at the end.

    Trial      the daemon, its hub, its events
    present    pages while they are there
    check, check_order    what they have

What must not live here: tests; pages (pages.py).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.process import faults
from tests.process.pages import Page, until
from tests.support import programs
from tests.support.harness import APPLICATIONS, Daemon, wait_until
from tests.support.patience import PATIENCE

TIMES = float(os.environ.get("TIDEGATE_TRIALS", "1"))
"""How much larger a trial is than in every run of the tests: 5 is what is promised."""

RECORDS = 400
"""Bytes of some records, within which a hub is killed."""


class Trial:
    """A daemon whose hubs can be killed at any byte, by the numbers of a seed."""

    def __init__(self, folder: Path, workers: int, *options: str) -> None:
        self.seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
        print(f"SEED={self.seed}")
        self.chance = random.Random(self.seed)
        self.file = folder / "fault"
        self.workers = workers
        self.address = f"local://{folder}/control.hub"
        self.daemon = Daemon(
            APPLICATIONS / "channels.py",
            *("--control", f"{folder}/control", *options),
            target="application:app",
            workers=workers,
            drain=0.2,
            env=programs.environment(),
        )
        self.daemon.command = faults.command(self.daemon.command, self.file)

    # Events.

    def hubs(self) -> list[int]:
        """The process ids of hubs, the newest last: there are two for a moment of an upgrade."""
        return sorted(pid for pid, title in self.daemon.titles().items() if title == "tidegate: hub")

    def hub(self) -> int:
        """The process id of the hub."""
        return wait_until(self.hubs, "a hub")[-1]

    def kill_hub(self) -> None:
        """Kill the hub at any byte of what it stores."""
        hub = self.hub()
        faults.arm(hub, self.file, self.chance.randrange(RECORDS))
        wait_until(lambda: (hubs := self.hubs()) and hub not in hubs, "another hub")
        self.file.unlink(missing_ok=True)

    def kill_worker(self) -> None:
        """Kill one of the workers, when there are as many as there should be."""
        found = wait_until(lambda: len(all_ := self.daemon.workers()) >= self.workers and all_, "all workers")
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            self.daemon.signal(signal.SIGKILL, self.chance.choice(found))

    def reload(self) -> None:
        """Hand over to another generation."""
        self._replace(signal.SIGHUP, f"serves with {self.workers} worker")

    def upgrade(self) -> None:
        """Replace the program in place."""
        self._replace(signal.SIGUSR2, "has taken over")

    def _replace(self, number: int, done: str) -> None:
        """Send a signal; what comes next comes while the old generation drains, or after its end."""
        line = self.chance.choice([done, " has ended"])
        before = self.daemon.log.count(line)
        self.daemon.signal(number)
        wait_until(lambda: self.daemon.log.count(line) > before, line)

    def events(self, **counts: int) -> list[Callable[[], None]]:
        """So many events of each kind, TIDEGATE_TRIALS times, in any order."""
        found = [
            event for name, count in counts.items() for event in [getattr(self, name)] * max(1, round(count * TIMES))
        ]
        self.chance.shuffle(found)
        return found


@asynccontextmanager
async def present(pages: list[Page], patience: float = PATIENCE) -> AsyncIterator[list[Page]]:
    """Pages that have joined their channels."""
    for page in pages:
        page.connect()
    await until(lambda: all(page.is_there for page in pages), "joins", patience)
    try:
        yield pages
    finally:
        for page in pages:
            page.close()


def check_order(pages: list[Page], forgets: bool = False) -> None:
    """What pages have grows one by one, but for where they were told that something is missing.

    An engine that `forgets` has forgotten keys, too: a message whose answer was lost is published again, and comes
    once more after the notice.
    """
    for page in pages:
        for channel, log in page.logs.items():
            before = 0
            told = False
            for number in log:
                if number is None:
                    told = True
                    continue
                assert number == before + 1 or (told and number > before - forgets), (
                    f"{channel}: {number} after {before}"
                )
                before, told = number, False


def check(pages: list[Page], sent: dict[str, int]) -> None:
    """Every page has every message once, in order, and was told of no gap."""
    for page in pages:
        assert page.told == [], f"{page.told}, {page.resumed}"
        for channel, log in page.logs.items():
            assert log == list(range(1, sent[channel] + 1)), f"{channel}: {differences(log)}, {page.resumed}"
        assert {*page.resumed} <= {"new", "full", "later"}
        assert page.resumed["new"] == len(page.logs)


def differences(log: list[int | None]) -> str:
    """Where a log is not 1, 2, 3 ..."""
    return ", ".join(
        f"{before} -> {after}" for before, after in zip([0, *log], log, strict=False) if after != (before or 0) + 1
    )
