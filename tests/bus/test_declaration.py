"""What an application declares, as words for other processes: all of it comes back, or the reason why not.

What must not live here: who is told (tests/supervisor/test_declarations.py), what is published by it (tests/admin).
"""

from __future__ import annotations

import pytest

from tidegate.bus.declaration import LONGEST, Declaration, declare, read
from tidegate.channels import Channel
from tidegate.exceptions import BusError

CHANNELS = {
    "": Channel(history=3, keep=1.5, history_bytes=1000),
    "chat:": Channel(presence=True, presence_grace=0.5),
    "preis ä:": Channel(history=1, recover="latest"),
}


def test_all_of_it_comes_back() -> None:
    assert read(declare(CHANNELS, 2**20)) == Declaration(CHANNELS, 2**20)
    assert read(declare({}, 1024)) == Declaration({}, 1024)


def test_without_channels_there_is_no_bus() -> None:
    with pytest.raises(BusError, match=r"^the application declares no channels$"):
        read(declare(None, 2**20))


def test_what_is_too_much_is_not_said() -> None:
    """A tenth of it is."""
    many = {f"{number}:": Channel() for number in range(2000)}
    said = declare(many, 2**20)
    assert len(said) < 100
    with pytest.raises(
        BusError, match=f"^the application declares so many channels .* bytes, and {LONGEST} are the li"
    ):
        read(said)
    few = {f"{number}:": Channel() for number in range(200)}
    assert read(declare(few, 2**20)).channels == few


@pytest.mark.parametrize("said", [b"", b"[]", b'{"channels":{"h:":{"history":-1}}}', b'{"channels":{"h:":5}}'])
def test_words_of_an_application_that_writes_where_it_should_not(said: bytes) -> None:
    with pytest.raises(BusError, match=r"^what the application declares cannot be read: "):
        read(said)
