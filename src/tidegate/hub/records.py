"""What the hub records of itself, in its row of the scoreboard.

    Records    of one hub

What must not live here: names of metrics (metrics/catalog.py).
"""

from __future__ import annotations

from .._core.counters import Row
from .._core.journal import Journal
from .._core.switch import Switch
from .._core.topic import usage

__all__ = ["Records"]


class Records:
    """The records of one hub; `update()` is called once a second, and at its end.

    Counters go on where those of the hub before this one ended.

    Parameters:
        row: of the hub.
        switch, journal: where it is counted.
    """

    def __init__(self, row: Row, switch: Switch, journal: Journal) -> None:
        self._row, self._switch, self._journal = row, switch, journal
        self._counted: dict[tuple[str, ...], int] = {}
        self._lost = 0  # by links that have ended

    def ended(self, lost: int) -> None:
        """Take it that a link has ended, on which so many messages were dropped."""
        self._lost += lost

    def update(self) -> None:
        """Record what happened since the last time, and what is now."""
        row, switch, journal = self._row, self._switch, self._journal
        links = list(switch.links.values())
        lost = self._lost + sum(link.lost for link in links)
        counts: dict[tuple[str, ...], int] = {
            ("hub_published",): switch.published,
            ("hub_delivered",): switch.delivered,
            ("journal_stored",): journal.stored,
            ("journal_evicted", "space"): journal.evicted,
            ("bus_dropped", "link"): lost,
        }
        for word, count in counts.items():
            row.inc(*word, by=count - self._counted.get(word, 0))
        self._counted = counts
        messages, size = usage(journal.topics.values())
        row.set("hub_links", len(links))
        row.set("hub_queue_bytes", sum(link.waiting for link in links))
        row.set("hub_topics", len(journal.topics))
        row.set("journal_messages", messages)
        row.set("journal_bytes", size)
