"""What a comparison found, as a file: figures of each round, the machine, the versions.

What must not live here: measuring (compare.py), how people see it (pages.py).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
from pathlib import Path
from typing import Self

import msgspec

from tests.benchmarks.servers import OURS

DIGITS = 4  # that are kept of a figure


class Figures(msgspec.Struct, omit_defaults=True):
    """Of a server in a cell: a figure for each round.

    Attributes:
        cost: seconds of the server's processor for a message, a delivery or a handshake; bytes of memory for an idle
            connection.
        rate: messages, deliveries or handshakes a second.
        p50: seconds until a message is answered, a round of deliveries is complete, or a handshake is done.
        p99: the same of the slowest hundredth.
        load: share of a processor that the load took.
    """

    cost: list[float] = []
    rate: list[float] = []
    p50: list[float] = []
    p99: list[float] = []
    load: list[float] = []

    def add(self, other: Figures) -> None:
        """Add those of more rounds."""
        for name in self.__struct_fields__:
            rounded = [float(f"{value:.{DIGITS}g}") for value in getattr(other, name)]
            setattr(self, name, getattr(self, name) + rounded)


class Machine(msgspec.Struct):
    """Where it was measured, and when."""

    processor: str
    processors: int
    kernel: str
    python: str
    date: str

    @classmethod
    def here(cls) -> Self:
        """This machine, now."""
        found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return cls(
            processor=found[1] if found else platform.machine(),
            processors=os.cpu_count() or 1,
            kernel=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            date=datetime.date.today().isoformat(),
        )


class Results(msgspec.Struct):
    """All of it.

    Attributes:
        versions: server -> release.
        rounds: how many there were.
        seconds: that each was measured in a round.
        cells: name of the cell -> server -> figures.
    """

    machine: Machine
    versions: dict[str, str]
    rounds: int
    seconds: float
    cells: dict[str, dict[str, Figures]] = {}

    def ours(self, cell: str, server: str) -> str:
        """The server of ours that another is compared with: in a cell without it, the one with the same application."""
        return OURS if OURS in self.cells[cell] else f"{server.partition('-')[0]}-{OURS}"

    def ratio(self, cell: str, server: str, figure: str = "cost") -> float:
        """Ours over that of another server: the median of those of each round."""
        ours, other = (getattr(self.cells[cell][name], figure) for name in (self.ours(cell, server), server))
        return float(statistics.median(one / another for one, another in zip(ours, other, strict=True)))

    def write(self, path: Path) -> None:
        """Write a file, with a server on a line."""
        head = json.dumps({name: msgspec.to_builtins(getattr(self, name)) for name in self.__struct_fields__[:-1]})
        cells = (
            f'  "{cell}": {{\n'
            + ",\n".join(f'   "{server}": {msgspec.json.encode(found).decode()}' for server, found in servers.items())
            + "\n  }"
            for cell, servers in self.cells.items()
        )
        path.write_text(f'{head[:-1]},\n "cells": {{\n' + ",\n".join(cells) + "\n }\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write()` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)
