"""Servers beside each other on this machine: ``python -m tests.benchmarks.compare``.

    --rounds N        how often each is measured (7)
    --seconds S       how long each time (1)
    --cells A,B       some of the cells of cells.py; `http` is measured only if it is named
    --servers A,B     some of the servers of servers.py, or of asgi.py; tidegate is always among them
    --json FILE       write what came out there
    --record          write results.json, and the tables of the guide and the README

Each round starts each server anew, in another order each time, in a process that has the first processor for itself;
the load of `tidegate bench` has the others. The processor time is the kernel's account of the process, while the load
runs. What is compared are ratios of one round, of which the median is shown: the speed of a machine drifts, but less
within a round. Servers that are not installed are left out.

What must not live here: the servers (servers.py), the cells (cells.py), tables (pages.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from tests.benchmarks import asgi, pages
from tests.benchmarks.cells import ALL as ALL_CELLS
from tests.benchmarks.cells import CELLS, Cell
from tests.benchmarks.http_load import HttpLoad
from tests.benchmarks.results import Figures, Machine, Results
from tests.benchmarks.servers import ALL, OURS, SERVERS, installed, version
from tests.support.patience import PATIENCE
from tidegate.cli.bench.plan import Plan
from tidegate.cli.bench.processes import Processes, ProcessFailed
from tidegate.cli.bench.results import Round

ROOT = Path(__file__).resolve().parents[2]
GROUND = 200  # connections that a server has had before its memory is measured
SETTLED = 0.3  # seconds from the last connection to the measurement

PROCESSORS = sorted(os.sched_getaffinity(0))
OF_THE_SERVER, OF_THE_LOAD = PROCESSORS[:1], PROCESSORS[1:] or PROCESSORS


def processor_time(pid: int) -> float:
    """Seconds that a process has had, in user space and in the kernel."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended
            found += int((thread / "schedstat").read_text().split()[0])
    return found / 1e9


def memory(pid: int) -> int:
    """Bytes of a process, without what it shares with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextlib.asynccontextmanager
async def running(name: str, fan: bool) -> AsyncIterator[tuple[int, int]]:
    """A server; its process and its port.

    Raises:
        ProcessFailed: if it does not start, or as the block does: with what the server says of it.
    """
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.servers", name, *(["fan"] if fan else [])),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
        )
        try:
            os.sched_setaffinity(process.pid, OF_THE_SERVER)
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                line = await process.stdout.readline()
            if not line:
                raise ProcessFailed(f"{name} does not start")
            yield process.pid, int(line)
        except ProcessFailed as error:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ProcessFailed(f"{error}: {last}" if last else str(error)) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def load(plan: Plan) -> AsyncIterator[Processes]:
    """The processes of a load, whose connections are open."""
    made = Processes(plan, 1, lambda _: None)
    try:
        await made.start()
        yield made
    except BaseException:
        await made.abandon()
        raise


class Spent:
    """The processor time of a process between two moments, as a share of what passed.

    Parameters:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.share = 0.0

    async def between(self, begins: float, ends: float) -> None:
        """Measure it, as nearly then as this process has its turn."""
        taken = []
        for moment in (begins, ends):
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            taken.append((time.monotonic(), processor_time(self._pid)))
        (began, before), (ended, after) = taken
        self.share = (after - before) / (ended - began)


async def one_round(cell: Cell, server: str, seconds: float) -> Figures:
    """Measure a server once.

    Raises:
        ProcessFailed: if it fails, some of its connections do, or nothing is answered in time.
    """
    async with running(server, cell.fan) as (pid, port):
        plan = cell.load(server, port, seconds)
        if cell.memory:
            return Figures(cost=[await memory_of_a_connection(plan, pid)])
        spent = Spent(pid)
        async with HttpLoad.connected(plan) if cell.http else load(plan) as made:
            if plan.mode == "handshakes":
                before = processor_time(pid)
                made.begin()
                found = await made.finish()
                seconds_spent = processor_time(pid) - before
            else:
                begins = made.begin()
                measured = asyncio.create_task(spent.between(begins, begins + seconds))
                found = await made.finish()
                await measured
                seconds_spent = spent.share * found.seconds
        check(found, server)
        if found.latency is None or not found.messages:
            raise ProcessFailed(f"{server} answers nothing")
        return Figures(
            cost=[seconds_spent / found.messages],
            rate=[found.rate],
            p50=[found.latency.p50],
            p99=[found.latency.p99],
            load=[found.client_cpu],
        )


async def one_more_try(cell: Cell, server: str, seconds: float) -> Figures:
    """Measure a server once, and forgive it a failure: a run of minutes is not to be lost by the machine's whim.

    Raises:
        ProcessFailed: if it fails again.
    """
    try:
        return await one_round(cell, server, seconds)
    except ProcessFailed as error:
        print(f" [{error}; once more]", end="", file=sys.stderr, flush=True)
        return await one_round(cell, server, seconds)


async def memory_of_a_connection(plan: Plan, pid: int) -> float:
    """Bytes that each takes, of a server that has had some before."""
    async with load(msgspec.structs.replace(plan, connections=GROUND, duration=0.0)) as made:
        made.begin()
        await made.finish()
    await asyncio.sleep(SETTLED)
    before = memory(pid)
    async with load(msgspec.structs.replace(plan, duration=0.0)) as made:
        await asyncio.sleep(SETTLED)
        taken = memory(pid) - before
        made.begin()
        check(await made.finish(), "the server")
    return taken / plan.connections


def check(found: Round, server: str) -> None:
    """Have no figures of a server that fails."""
    if found.errors:
        raise ProcessFailed(f"{server} fails: {found.errors}")


async def measure(cells: list[str], servers: list[str], rounds: int, seconds: float) -> Results:
    """Measure all, and tell of it on standard error."""
    versions = {name: version(name) for name in servers}
    results = Results(machine=Machine.here(), versions=versions, rounds=rounds, seconds=seconds)
    for name in cells:
        cell = ALL_CELLS[name]
        found = {
            server: Figures()
            for server in servers
            if server in cell.servers or (server in asgi.SERVERS and not cell.fan)
        }
        print(f"{name:13s}", end="", file=sys.stderr, flush=True)
        for _ in range(rounds):
            for server in random.sample(list(found), len(found)):
                found[server].add(await one_more_try(cell, server, seconds))
        results.cells[name] = found
        for server, figures in found.items():
            shown = pages.cost(cell, statistics.median(figures.cost))
            ratio = "" if server == results.ours(name, server) else f" x {results.ratio(name, server):.2f}"
            print(f"  {server} {shown}{ratio}", end="", file=sys.stderr)
        print(file=sys.stderr, flush=True)
    return results


def names(text: str, known: Any) -> list[str]:
    """Names with commas between, all of which are known.

    Raises:
        argparse.ArgumentTypeError: if one is not.
    """
    found = text.split(",")
    for name in found:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cells", type=lambda text: names(text, ALL_CELLS), default=list(CELLS))
    parser.add_argument("--servers", type=lambda text: names(text, ALL), default=list(SERVERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if options.rounds < 1 or not options.seconds > 0:
        parser.error("--rounds must be at least 1, and --seconds above 0")
    here = installed()
    if missing := [name for name in options.servers if name not in here]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    servers = [name for name in ALL if name in here and (name in options.servers or name == OURS)]
    if options.record and (missing or options.cells != list(CELLS) or len(servers) != len(SERVERS)):
        parser.error("--record wants all cells and all servers")
    os.sched_setaffinity(0, OF_THE_LOAD)
    try:
        results = uvloop.run(measure(options.cells, servers, options.rounds, options.seconds))
    except ProcessFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(pages.tables(results))
    if options.json:
        results.write(options.json)
    if options.record:
        results.write(pages.RESULTS)
        pages.write(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
