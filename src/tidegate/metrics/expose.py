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
from .application import Users
from .collect import ScoreboardCollector


def registry(scoreboard: Scoreboard, before: Collection[int] = ()) -> CollectorRegistry:
    """A registry of the daemon's own metrics, and of those of its application where there is a folder for them.

    `before` are the admin processes before this one.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScoreboardCollector(scoreboard, before))
    if folder := os.environ.get(MULTIPROC_DIR):
        registry.register(Users(folder))
    return registry


def expose(registry: CollectorRegistry, accept: str = "") -> tuple[str, bytes]:
    """The Content-Type and the text, for a request's Accept header; one that makes no sense gets the plain format."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encoder, content_type = choose_encoder("")
    return content_type, encoder(registry)
