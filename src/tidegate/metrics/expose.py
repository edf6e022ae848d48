"""The text of /metrics, in the format that the scraper asked for: prometheus_client negotiates and writes it.

What must not live here: metrics, HTTP beyond the two headers of content negotiation.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from .._core.scoreboard import Scoreboard
from .collect import ScoreboardCollector


def registry(scoreboard: Scoreboard) -> CollectorRegistry:
    """A registry of the daemon's own metrics; other collectors can join it, if their names differ."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScoreboardCollector(scoreboard))
    return registry


def expose(registry: CollectorRegistry, accept: str = "") -> tuple[str, bytes]:
    """The Content-Type and the text, for a request's Accept header; one that makes no sense gets the plain format."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encoder, content_type = choose_encoder("")
    return content_type, encoder(registry)
