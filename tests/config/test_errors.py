"""What the error for a setting says, and the fields that it carries.

What must not live here: which values are refused (test_types.py, test_bind.py).
"""

from __future__ import annotations

import pytest

from tidegate.config.errors import ConfigError
from tidegate.config.schema import settings


def test_an_error_has_what_it_says() -> None:
    with pytest.raises(ConfigError) as caught:
        settings()["workers"].read("many")
    error = caught.value
    assert (error.option, error.value, error.allowed) == ("--workers", "many", "a whole number from 1 to 256, or auto")
    assert str(error) == "--workers 'many' is not allowed: give a whole number from 1 to 256, or auto"
    assert error.remedy == "give a whole number from 1 to 256, or auto"


def test_an_error_whose_remedy_is_no_other_value() -> None:
    error = ConfigError("--user", "me", reason="only root may", remedy="start it as root")
    assert str(error) == "--user 'me' is not allowed (only root may): start it as root"
    assert str(error.given_as("TIDEGATE_USER")) == "TIDEGATE_USER 'me' is not allowed (only root may): start it as root"
