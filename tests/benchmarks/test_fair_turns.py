"""A steady client beside attackers, on one worker: the table of bystander.py (pytest -rA shows it).

How long its echoes take is shown and not judged, since the machine may be doing other things as well. That they come,
that nobody loses the connection and the worker lives, and what memory it takes are judged.
"""

from __future__ import annotations

import pytest

from tests.benchmarks.bystander import ATTACKS, HEAD, beside

SECONDS = 2.0
# Of a worker: 34 MiB by itself, and for the attacker max_queue times max_size, what it is sending and has not read.
MOST = 34 + 16 + 24


@pytest.mark.timed
def test_nobody_waits_for_an_attacker() -> None:
    print(HEAD)
    for name in ATTACKS:
        row = beside(name, SECONDS)
        print(f"{name:34s} {row}")
        assert row.echoes > 0
        assert row.mebibytes < MOST
        assert row.cuts == 0


def test_the_bystander_that_is_measured() -> None:
    row = beside("none", 0.2)
    assert 0 < row.p50 <= row.p99 <= row.longest
    assert row.echoes > 0
