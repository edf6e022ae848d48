"""The folder for what an application counts: where it is made, what becomes of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.environment import MULTIPROC_DIR
from tidegate.supervisor import multiproc_dir
from tidegate.supervisor.multiproc_dir import MultiprocDir


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[MultiprocDir]:
    monkeypatch.setenv(MULTIPROC_DIR, "")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    files = MultiprocDir()
    yield files
    files.close()


def parent(files: MultiprocDir) -> Path:
    assert files.folder is not None
    assert os.environ[MULTIPROC_DIR] == files.folder
    assert Path(files.folder).stat().st_mode & 0o777 == 0o700
    return Path(files.folder).parent


def test_it_is_in_the_runtime_directory(files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/elsewhere")
    files.make()
    assert parent(files) == tmp_path
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_the_variable_says_where(files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/elsewhere")
    files.make()
    assert parent(files) == tmp_path


def test_a_place_that_is_not_there_is_passed_by(files: MultiprocDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/nowhere")
    files.make()
    assert parent(files).exists()


def test_where_there_is_no_place_at_all(
    files: MultiprocDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(multiproc_dir, "_parents", lambda: iter(["/nowhere", "/nor/here"]))
    with caplog.at_level(logging.WARNING):
        files.make()
    assert files.folder is None
    assert MULTIPROC_DIR not in os.environ
    assert "/nor/here" in caplog.text
    files.ended(0)


def test_a_dead_workers_live_gauges_go(files: MultiprocDir) -> None:
    files.make()
    assert files.folder is not None
    names = ["gauge_liveall_1.db", "gauge_livesum_1.db", "gauge_livesum_11.db", "gauge_sum_1.db", "counter_1.db"]
    for name in names:
        (Path(files.folder) / name).touch()
    files.ended(1)
    assert sorted(os.listdir(files.folder)) == sorted(names[2:])


def test_a_gauge_that_cannot_be_removed_is_left(files: MultiprocDir) -> None:
    files.make()
    assert files.folder is not None
    (Path(files.folder) / "gauge_liveall_1.db").mkdir()
    files.ended(1)


@pytest.mark.parametrize("again", [False, True], ids=["removed", "made by somebody else"])
def test_one_that_is_removed_is_made_anew_and_told_once(
    files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, again: bool
) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    files.make()
    assert not files.renew_if_removed()
    before = files.folder
    assert before is not None
    Path(before).rename(tmp_path / "moved")
    if again:
        Path(before).mkdir()
    with caplog.at_level(logging.WARNING):
        assert files.renew_if_removed()
        assert not files.renew_if_removed()
    assert parent(files) == tmp_path
    assert files.folder != before
    assert len(caplog.records) == 1
    assert f"{before} has been removed" in caplog.text
    assert f"count in {files.folder}" in caplog.text


def test_one_that_is_removed_with_all_that_is_around_it(
    files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(multiproc_dir, "_parents", lambda: iter([str(tmp_path / "run")]))
    files.make()
    (tmp_path / "run").rename(tmp_path / "moved")
    with caplog.at_level(logging.WARNING):
        assert files.renew_if_removed()
        assert not files.renew_if_removed()
    assert (files.folder, MULTIPROC_DIR in os.environ) == (None, False)
    assert "count alone" in caplog.text


def test_it_stays_over_an_upgrade(files: MultiprocDir) -> None:
    files.make()
    after = MultiprocDir()
    after.restore(files.folder, rows=True)
    assert after.folder == files.folder
    after.close()
    assert files.folder is not None
    assert not os.path.exists(files.folder)


def test_workers_whose_rows_are_lost_keep_their_folder_to_the_end(
    files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    files.make()
    after = MultiprocDir()
    after.restore(files.folder, rows=False)
    assert after.folder != files.folder
    assert parent(after) == tmp_path
    assert len(list(tmp_path.iterdir())) == 2
    after.close()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_had_none(files: MultiprocDir) -> None:
    files.restore(None, rows=True)
    assert parent(files).exists()


def test_what_a_killed_daemon_has_left_is_removed(
    files: MultiprocDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    files.make()
    used = files.folder
    assert used is not None
    left, fresh, others = (tmp_path / name for name in ("tidegate-metrics-1-left", "tidegate-metrics-1-new", "others"))
    for folder in (left, fresh, others):
        folder.mkdir()
        (folder / "counter_0.db").touch()
    for folder in (left, others, Path(used)):
        os.utime(folder, (0, 0))
    (tmp_path / "tidegate-metrics-file").touch()
    (tmp_path / "tidegate-metrics-link").symlink_to(others)
    another = MultiprocDir()
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    another.make()
    assert not left.exists()
    assert fresh.exists()
    assert others.exists()
    assert Path(used).exists(), "a daemon that runs keeps its own"
    another.close()


def test_a_folder_that_somebody_has_removed(files: MultiprocDir, tmp_path: Path) -> None:
    files.restore(str(tmp_path / "gone"), rows=True)
    assert files.folder is not None
    assert parent(files) == tmp_path
