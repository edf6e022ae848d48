"""The text of /metrics, in the format that the scraper asked for: prometheus_client negotiates and writes it.

What must not live here: metrics, HTTP beyond the two headers of content negotiation.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from .._core.scoreboard import Scoreboard
from ..environment import MULTIPROC_DIR
from .application import ApplicationCollector
from .collect import ScoreboardCollector


def registry(scoreboard: Scoreboard, before: Collection[int] = ()) -> CollectorRegistry:
    """Return a registry of the daemon's metrics, and of the application's if there is a folder for them.

    `before` has the process ids of earlier admin processes.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScoreboardCollector(scoreboard, before))
    if folder := os.environ.get(MULTIPROC_DIR):
        registry.register(ApplicationCollector(folder))
    return registry


def expose(registry: CollectorRegistry, accept: str = "") -> tuple[str, bytes]:
    """Return the Content-Type and the text for a request's Accept header; the plain format for an invalid one."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an invalid version
        encoder, content_type = choose_encoder("")
    return content_type, encoder(registry)
