"""Signals as bytes in a pipe, and what a child makes of those that came while it was forked.

Dispositions belong to a whole process, so each case has a process of its own.
What must not live here: what the supervisor does about a signal.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.supervisor import cases_signals as cases
from tests.support import programs
from tidegate.supervisor.signals import name_of


def run(case: Callable[[], object]) -> subprocess.CompletedProcess[str]:
    """Run it without a terminal."""
    done = programs.run(case, start_new_session=True)
    assert done.stderr == ""
    return done


def test_each_signal_is_a_byte_in_its_order() -> None:
    done = run(cases.a_byte_each)
    assert done.returncode == 0


def test_no_signal_changes_an_end_that_is_certain() -> None:
    """Not even where the interpreter has given its handlers up."""
    done = run(cases.certain_end)
    assert done.returncode == 3


def test_a_signal_wakes_whoever_waits_for_the_descriptor() -> None:
    done = run(cases.wakes)
    assert done.returncode == 0


def test_signals_that_the_parent_had_masked_or_ignored_are_heard() -> None:
    done = run(cases.masked_and_ignored_before)
    assert done.returncode == 0


def test_blocked_signals_wait() -> None:
    done = run(cases.blocked)
    assert done.returncode == 0


def test_a_child_that_is_told_to_end_before_it_has_settled_ends_when_it_has() -> None:
    done = run(cases.child_told_to_end_before_it_has_settled)
    assert (done.returncode, done.stdout) == (0, "waited ")


def test_a_child_ignores_what_a_terminal_sends_and_hands_no_ignoring_on() -> None:
    done = run(cases.what_a_terminal_sends)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_a_flood_fills_the_pipe_and_nothing_else() -> None:
    done = run(cases.flood)
    assert done.returncode == 0


def test_names() -> None:
    """A signal has its name; a number without one stays a number."""
    assert name_of(15) == "SIGTERM"
    assert name_of(63) == "63"


def test_what_nohup_ignores_stays_ignored_and_goes_on_to_programs() -> None:
    done = run(cases.nohup)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_in_the_background_of_a_terminal_writing_stops_nobody() -> None:
    """With `stty tostop` a write from the background gets SIGTTOU, and a read SIGTTIN."""
    done = run(cases.background_of_a_terminal)
    assert done.stdout == "written Input/output error b''.\n"
