"""Which processor a slot gets.

What must not live here: how the setting is written (tests/config/test_types.py), and whether it can be met
(tests/config/test_prerequisites.py).
"""

from __future__ import annotations

import os
import sys

import pytest

from tidegate.supervisor.system.cpu_affinity import pin, processor_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let processes choose")


def test_each_slot_has_the_next_one() -> None:
    usable = {0, 1, 4}
    assert [processor_of("auto", slot, usable) for slot in range(5)] == [0, 1, 4, 0, 1]
    assert [processor_of((4, 0), slot, usable) for slot in range(3)] == [4, 0, 4]
    assert processor_of(None, 0, usable) is None


def test_a_worker_stays_where_it_belongs(caplog: pytest.LogCaptureFixture) -> None:
    before = os.sched_getaffinity(0)
    try:
        pin("auto", 1)
        assert os.sched_getaffinity(0) == {sorted(before)[1 % len(before)]}
        os.sched_setaffinity(0, before)
        pin(None, 0)
        pin((9999,), 0)
        assert os.sched_getaffinity(0) == before
        assert "processor 9999 cannot be used" in caplog.text
    finally:
        os.sched_setaffinity(0, before)
