"""What a server says at /metrics of its processor time and its memory.

Those of tidegate by its own names, those of any other program by the names that clients of Prometheus give every
process. What must not live here: when it is asked (rounds.py).
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Unreadable", "Usage", "read"]

CPU = ("tidegate_process_cpu_seconds_total", "process_cpu_seconds_total")
MEMORY = ("tidegate_process_resident_memory_bytes", "process_resident_memory_bytes")
TIMEOUT = 5.0  # seconds
LIMIT = 2**24  # bytes of a page


class Unreadable(Exception):
    """There are no metrics."""


class Usage(NamedTuple):
    """What a server has taken so far: seconds of processors, and bytes now."""

    cpu_seconds: float
    memory: float | None


def parse(text: str) -> Usage:
    """Find it in a page.

    Raises:
        Unreadable: if it is not there.
    """
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                # Of tidegate, the workers: the supervisor and the process of these metrics do not serve.
                if sample.name in (*CPU, *MEMORY) and sample.labels.get("worker", "0").isdigit():
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except ValueError as error:
        raise Unreadable(f"that is no page of metrics: {error}") from None
    cpu = next((found[name] for name in CPU if name in found), None)
    if cpu is None:
        raise Unreadable(f"there is neither {' nor '.join(CPU)}")
    return Usage(cpu, next((found[name] for name in MEMORY if name in found), None))


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            page: bytes = response.read(LIMIT)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Unreadable(str(reason)) from None
    return page.decode(errors="replace")


async def read(url: str) -> Usage:
    """Ask a server.

    Raises:
        Unreadable: if it does not say.
    """
    return parse(await asyncio.to_thread(_get, url))
