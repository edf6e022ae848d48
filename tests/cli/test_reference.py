"""The pages of reference: complete, and in deploy/guides as they would be written now."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import ROOT
from tidegate.cli import reference
from tidegate.config.schema import settings
from tidegate.metrics.catalog import CATALOG


def first_cells(page: str) -> list[str]:
    """What the rows of a page's tables are about."""
    return re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_pages_are_up_to_date(name: str) -> None:
    written = (ROOT / "deploy" / "guides" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run: python -m tidegate.cli.reference deploy/guides"


@pytest.mark.parametrize("write", reference.PAGES.values(), ids=list(reference.PAGES))
def test_the_rows_are_whole(write: Callable[[], str]) -> None:
    """As many cells as the head of their table has: a bar in a text does not end one."""
    tables = re.findall(r"(?:^\|.*\n)+", write(), re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_every_setting_is_there_once() -> None:
    page = reference.configuration()
    assert first_cells(page) == [setting.flag for setting in settings().values() if not setting.positional]
    for setting in settings().values():
        assert setting.help.replace("|", r"\|") in page or setting.positional


def test_every_metric_is_there() -> None:
    rows = first_cells(reference.metrics())
    for metric in CATALOG:
        assert rows.count(metric.full_name) == (2 if metric.type == "histogram" else 1)  # its buckets are a row, too


def test_the_sections_begin_with_what_there_is() -> None:
    assert set(reference.SETTINGS) <= set(settings())
    assert set(reference.METRICS) <= {metric.name for metric in CATALOG}


def test_writing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every page is written into the folder; without one there is a usage line and status 2."""
    assert reference.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(reference.PAGES)
    assert reference.main([]) == reference.main([str(tmp_path / "none")]) == 2
    assert "usage:" in capsys.readouterr().err
