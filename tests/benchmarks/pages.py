"""The tables of a comparison: all of it in the guide, four rows in the README; each from a mark to the next heading.

What must not live here: figures (results.json), the prose around them.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.cells import ALL, CELLS, Cell
from tests.benchmarks.results import Results
from tests.benchmarks.servers import OURS, RAW

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
GUIDE = ROOT / "deploy" / "guides" / "performance.md"
README = ROOT / "README.md"

BEGIN = "<!-- Written by `python -m tests.benchmarks.compare --record`. -->"

# The rows of the README -> what they are called there.
TELLING = {
    "echo-1": "echo of 64 bytes, processor time",
    "handshake": "opening handshake, processor time",
    "fan-128": f"delivery of a broadcast to {CELLS['fan-128'].plan['connections']:,} clients, processor time",
    "idle": "idle connection, memory",
}


def cost(cell: Cell, value: float) -> str:
    """What a message takes of the processor, or a connection of memory: 3.42 us."""
    return f"{value / 1024:.3g} KiB" if cell.memory else f"{value * 1e6:.3g} us"


def many(value: float) -> str:
    """A rate: 123,000."""
    return f"{float(f'{value:.3g}'):,.0f}"


def share(value: float) -> str:
    """A ratio: 0.034, 0.34, 3.4, 34."""
    return f"{value:.2f}" if 0.095 <= value < 9.95 else f"{value:.2g}"


def row(fields: Sequence[str]) -> str:
    return f"| {' | '.join(fields)} |"


def ratios(results: Results, figure: str, names: dict[str, str], servers: Sequence[str]) -> Iterator[str]:
    """A table: ours as it is, and over that of each other server."""
    yield row(["of the server" if figure == "cost" else "a second", OURS, *(f"over {name}" for name in servers)])
    yield row(["---", *["---:"] * (len(servers) + 1)])
    for name, title in names.items():
        found = results.cells[name]
        shown = ""
        if OURS in found:
            value = statistics.median(getattr(found[OURS], figure))
            shown = cost(ALL[name], value) if figure == "cost" else many(value)
        fields = [share(results.ratio(name, server, figure)) if server in found else "" for server in servers]
        yield row([title, shown, *fields])


def where(results: Results) -> str:
    """The machine, and the releases."""
    machine = results.machine
    releases = ", ".join(f"{name} {release}" for name, release in results.versions.items())
    sentence = (
        f"Measured on {machine.date}: {machine.processor}, {machine.processors} processors, {machine.kernel},"
        f" {machine.python}; {releases}. Medians of {results.rounds} rounds of {results.seconds:g} s."
    )
    return textwrap.fill(sentence, 120)


def tables(results: Results) -> str:
    """The part of the guide that is written."""
    others = [name for name in results.versions if name != OURS]
    all_of_them = {name: name for name in results.cells}
    with_rates = {name: name for name in results.cells if not ALL[name].memory}
    parts = [
        where(results),
        "What the server takes of its processor for a message, a delivery or a handshake, and of memory for an idle"
        " connection:",
        "\n".join(ratios(results, "cost", all_of_them, others)),
    ]
    if with_rates:
        parts += [
            "How many messages, deliveries or handshakes there are in a second, of a server with one processor:",
            "\n".join(ratios(results, "rate", with_rates, others)),
        ]
    return "\n\n".join(parts)


def explained() -> str:
    """What each cell is."""
    return "\n".join(
        textwrap.fill(f"- **{name}**: {cell.text}", 120, subsequent_indent="  ") for name, cell in CELLS.items()
    )


def telling(results: Results) -> str:
    """The part of the README that is written."""
    others = [name for name in results.versions if name not in (OURS, RAW)]
    return "\n".join(ratios(results, "cost", TELLING, others))


def replaced(text: str, by: str) -> str:
    """A page with another text from the mark to the next heading.

    Raises:
        ValueError: if it does not have the mark once.
    """
    found, times = re.subn(f"({re.escape(BEGIN)}\n).*?(?=\n## )", lambda m: f"{m[1]}{by}\n", text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"the page must have this once: {BEGIN}")
    return found


def written(results: Results) -> dict[Path, str]:
    """The pages, as they have to be."""
    guide, readme = (page.read_text(encoding="utf-8") for page in (GUIDE, README))
    return {
        GUIDE: replaced(guide, f"\n{tables(results)}\n\n{explained()}"),
        README: replaced(readme, telling(results)),
    }


def write(results: Results) -> None:
    """Write them."""
    for page, text in written(results).items():
        page.write_text(text, encoding="utf-8")
