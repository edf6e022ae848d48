"""Numbers and folders from the environment.

What must not live here: which variable sets what (test_parity.py), the daemon's settings (tests/config).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tidegate.environment import number, runtime_directory


def test_the_first_runtime_directory_counts() -> None:
    assert runtime_directory({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == "/run/a"
    assert runtime_directory({"RUNTIME_DIRECTORY": ""}) == runtime_directory({}) == ""


def test_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is empty or absent leaves the default; its type is the number's."""
    monkeypatch.delenv("IT", raising=False)
    assert number("IT", 7) == 7
    monkeypatch.setenv("IT", "")
    assert number("IT", 7.5) == 7.5
    monkeypatch.setenv("IT", "0")
    assert number("IT", 7) == 0
    monkeypatch.setenv("IT", "2.5")
    assert number("IT", 7.5) == 2.5


@pytest.mark.parametrize(
    ("text", "default", "positive", "wanted"),
    [
        ("many", 1, True, "a positive integer"),
        ("0", 1, True, "a positive integer"),
        ("-1", 1, False, "an integer that is not negative"),
        ("1.5", 1, False, "an integer that is not negative"),
        ("inf", 1.0, False, "a number that is not negative"),
        ("nan", 1.0, False, "a number that is not negative"),
    ],
)
def test_a_wrong_number_names_the_variable_and_what_it_must_be(
    text: str, default: float, positive: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IT", text)
    with pytest.raises(ValueError, match=re.escape(f"variable IT must be {wanted}, got {text!r}")):
        number("IT", default, positive=positive)


@pytest.mark.parametrize("module", ["client", "frames", "http11"])
def test_every_number_of_the_environment_is_checked(module: str) -> None:
    names = {"client": "MAX_REDIRECTS", "frames": "MAX_LOG_SIZE", "http11": "MAX_NUM_HEADERS"}
    environment = {**os.environ, f"TIDEGATE_{names[module]}": "many"}
    command = [sys.executable, "-c", f"import tidegate.{module}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert re.search(rf"variable TIDEGATE_{names[module]} must be an? .*, got 'many'", done.stderr)
