"""The comparison of servers: each of them works, and the pages show what was recorded.

What must not live here: who is faster, which is for readers of the guide.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks import pages
from tests.benchmarks.cells import ALL, CELLS
from tests.benchmarks.compare import one_round
from tests.benchmarks.results import Figures, Machine, Results
from tests.benchmarks.servers import OURS, RAW, SERVERS, installed
from tests.support.harness import require
from tests.support.patience import SLOWNESS

SECONDS = 0.2 * SLOWNESS


def made() -> Results:
    """Results of two rounds."""
    cells = {
        name: {server: Figures([3e-6, 1e-6], [10.0, 30.0], [1e-3], [2e-3], [0.5]) for server in cell.servers}
        for name, cell in CELLS.items()
    }
    cells["echo-1"][RAW] = Figures([1e-6, 2e-6], [40.0, 60.0])
    return Results(Machine.here(), dict.fromkeys(SERVERS, "1.0"), 2, 1.0, cells)


@pytest.mark.slow
async def test_ours_is_measured() -> None:
    for name in ("echo-1", "idle"):
        found = await one_round(CELLS[name], OURS, SECONDS)
        assert found.cost[0] > 0
        assert bool(found.rate) is not CELLS[name].memory


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", CELLS)
async def test_each_can_be_measured(name: str, server: str) -> None:
    """A cell names the servers that can, and all their connections work."""
    require(server in installed(), f"the Python package {server}")
    if server in CELLS[name].servers:
        # A round of a fan is a thousand deliveries, of which there must be some on a slow machine.
        found = await one_round(CELLS[name], server, 5 * SECONDS if CELLS[name].fan else SECONDS)
        assert found.cost[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("server", ["asgi-tidegate", "asgi-uvicorn", "starlette-tidegate", "starlette-uvicorn"])
async def test_requests_can_be_measured(server: str) -> None:
    """Each is answered, and its processor time is counted."""
    found = await one_round(ALL["http"], server, SECONDS)
    assert found.rate[0] > 0
    assert found.cost[0] > 0


def test_the_pages_show_what_was_recorded() -> None:
    """Guide and README have the figures of results.json, and nobody has changed either by hand."""
    for page, text in pages.written(Results.read(pages.RESULTS)).items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name}: {pages.BEGIN}"


def test_all_of_it_was_recorded() -> None:
    results = Results.read(pages.RESULTS)
    assert {name: set(cell.servers) for name, cell in CELLS.items()} == {
        name: set(found) for name, found in results.cells.items()
    }
    for found in results.cells.values():
        for figures in found.values():
            assert len(figures.cost) == results.rounds


def test_results_are_read_as_written(tmp_path: Path) -> None:
    results = made()
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


def test_ratios_are_medians_of_rounds() -> None:
    """Of each round's ratio, not the ratio of medians."""
    results = made()
    assert results.ratio("echo-1", RAW) == pytest.approx((3 + 0.5) / 2)
    assert results.ratio("echo-1", RAW, "rate") == pytest.approx((0.25 + 0.5) / 2)


def test_tables() -> None:
    """Ours has its own figure, another server has ours over its own, and nothing where it cannot be measured."""
    text = pages.tables(made())
    assert "| echo-1 | 2 us | 1.00 | 1.00 | 1.00 | 1.75 |" in text
    assert "| echo-1 | 20 | 1.00 | 1.00 | 1.00 | 0.38 |" in text
    assert "| idle-deflate | 1.95e-09 KiB | 1.00 |  | 1.00 |  |" in text
    assert len(re.findall(r"^\| idle ", text, re.MULTILINE)) == 1, "nothing of it is a rate"


def test_a_cell_without_ours() -> None:
    """Handlers have no HTTP: servers of an application are compared with ours that serves the same one."""
    results = made()
    results.cells = {
        "http": {
            "asgi-tidegate": Figures([3.0], [1.0]),
            "asgi-uvicorn": Figures([4.0], [1.0]),
            "starlette-tidegate": Figures([5.0], [1.0]),
            "starlette-uvicorn": Figures([2.0], [1.0]),
        }
    }
    results.versions = dict.fromkeys(results.cells["http"], "1.0")
    assert results.ratio("http", "asgi-uvicorn") == 0.75
    assert "| http |  | 1.00 | 0.75 | 1.00 | 2.50 |" in pages.tables(results)


def test_digits() -> None:
    """Two that say something."""
    assert [pages.share(value) for value in (0.0341, 0.341, 3.41, 34.1)] == ["0.034", "0.34", "3.41", "34"]
    assert [pages.many(value) for value in (12.34, 123456.0)] == ["12", "123,000"]


def test_a_page_without_the_mark() -> None:
    with pytest.raises(ValueError, match="must have this once"):
        pages.replaced("# Title\n\n## Heading\n", "")
