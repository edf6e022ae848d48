"""A child as its parent sees it, and how long its slot waits for the next one.

What must not live here: what the supervisor does about either (test_supervisor.py).
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.patience import PATIENCE
from tidegate.config.schema import Config
from tidegate.ipc.pipe import Command, Pipe, Report, Stage, StopMode
from tidegate.supervisor.signals import Signals
from tidegate.supervisor.worker_handle import Backoff, Generation, Handle, Role, Slot

# Other tests of the same process may have left a thread in a pool; what is forked here takes no lock.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


FIRST = Generation(1, Config(application="application:handler"))
SECOND = Generation(2, FIRST.config)


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Not being caught: these tests run in pytest's own process."""
    signals = Signals()
    yield signals
    signals.close()


def fork(signals: Signals, child: Callable[[socket.socket], None]) -> Handle:
    handle = Handle(Slot(0, FIRST), FIRST, None)
    pipe = handle.fork(signals)
    if pipe is not None:  # the child
        try:
            signals.settle()
            child(pipe)
        finally:
            os._exit(0)
    return handle


def ended(handle: Handle) -> int:
    """Wait for the end by the descriptor that tells it."""
    assert select.select([handle.pidfd], [], [], PATIENCE)[0]
    assert handle.reap()
    assert handle.ended is not None
    return handle.ended


def hear_until(handle: Handle, stage: str) -> None:
    while handle.stage != stage:
        assert select.select([handle.pipe], [], [], PATIENCE)[0]
        handle.receive_reports()


def test_a_child_tells_and_ends(signals: Signals) -> None:
    def child(pipe: socket.socket) -> None:
        end = Pipe(pipe, Command)
        end.send(Report("ready"))
        end.send(Report("gone", "no database", 3))
        os._exit(3)

    handle = fork(signals, child)
    assert not handle.served
    assert ended(handle) == 3
    assert [report.stage for report in handle.receive_reports()] == ["ready", "gone"]
    assert handle.failure == Report("gone", "no database", 3)
    assert handle.served is not None
    assert (handle.end, handle.reason) == ("exited with status 3", "crash")
    handle.close()


def test_stages_only_go_forward(signals: Signals) -> None:
    def child(pipe: socket.socket) -> None:
        end = Pipe(pipe, Command)
        for stage in ("draining", "ready", "starting", "draining", "gone"):
            end.send(Report(stage))

    handle = fork(signals, child)
    ended(handle)
    assert [report.stage for report in handle.receive_reports()] == ["draining", "gone"]
    handle.close()


def test_a_child_that_dies_at_once_is_still_known(signals: Signals) -> None:
    """Until it is reaped its number is its own, so that a descriptor can be had and a signal goes nowhere else."""
    for _ in range(20):
        handle = fork(signals, lambda pipe: os._exit(7))
        assert ended(handle) == 7
        handle.kill(signal.SIGKILL)  # nobody
        assert handle.reap()
        handle.close()
        assert (handle.reason, handle.pidfd) == ("boot_failed", -1)


def test_an_order_goes_by_signal_until_the_child_can_hear(signals: Signals) -> None:
    handle = fork(signals, lambda pipe: signal.pause() and None)
    handle.stop(StopMode.GRACEFUL)
    assert ended(handle) == -signal.SIGTERM
    assert (handle.end, handle.reason) == ("was killed by signal 15 (SIGTERM)", "stopped")
    handle.close()


def test_an_order_goes_by_the_pipe_afterwards_and_only_grows(signals: Signals) -> None:
    def child(pipe: socket.socket) -> None:
        end = Pipe(pipe, Command)
        end.send(Report("ready"))
        heard: list[int] = []
        while not end.ended:
            select.select([end], [], [])
            heard += [command.stop for command in end.receive()]
            if heard[-1:] == [StopMode.ABORT]:
                os._exit(sum(10**place * level for place, level in enumerate(reversed(heard))))

    handle = fork(signals, child)
    assert select.select([handle.pipe], [], [], PATIENCE)[0]
    handle.receive_reports()
    for level in (StopMode.GRACEFUL, StopMode.GRACEFUL, StopMode.CLOSE, StopMode.GRACEFUL, StopMode.ABORT):
        handle.stop(level)
    assert ended(handle) == 123
    handle.close()


def test_a_child_without_ears_is_killed(signals: Signals) -> None:
    """It has told that it is ready, then closed its end."""

    def child(pipe: socket.socket) -> None:
        Pipe(pipe, Command).send(Report("ready"))
        pipe.close()
        signal.pause()

    handle = fork(signals, child)
    while not handle.pipe.ended:
        select.select([handle.pipe], [], [], PATIENCE)
        handle.receive_reports()
    handle.stop(StopMode.GRACEFUL)
    assert ended(handle) == -signal.SIGTERM
    handle.close()


def test_a_child_that_somebody_else_reaped_has_ended(signals: Signals) -> None:
    handle = fork(signals, lambda pipe: None)
    os.waitpid(handle.pid, 0)
    assert handle.reap()
    handle.close()


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, "oom_suspect"), (signal.SIGVTALRM, "signal")])
def test_reasons(signals: Signals, number: int, reason: str) -> None:
    """The signal that killed a worker decides the word that its exit is counted under."""

    def child(pipe: socket.socket) -> None:
        Pipe(pipe, Command).send(Report("ready"))
        os.kill(os.getpid(), number)

    handle = fork(signals, child)
    assert ended(handle) == -number
    handle.receive_reports()
    assert handle.reason == reason
    handle.close()


@pytest.mark.parametrize("word", ["ready", "draining", "gone"])
@pytest.mark.parametrize("ordered", [False, True], ids=["by itself", "on command"])
@pytest.mark.parametrize("status", [0, 1])
def test_only_who_says_so_has_ended_well(signals: Signals, word: Stage, ordered: bool, status: int) -> None:
    """os._exit(0) in a handler is a crash, in a drain as well: the other clients lose their connections by it."""

    def child(pipe: socket.socket) -> None:
        end = Pipe(pipe, Command)
        for stage in ("ready", word):
            end.send(Report(stage))
        if ordered:
            select.select([end], [], [])
        os._exit(status)

    handle = fork(signals, child)
    if ordered:
        hear_until(handle, word)
        handle.stop(StopMode.GRACEFUL, "reload")
    ended(handle)
    handle.receive_reports()
    if word == "gone" and ordered:
        assert (handle.reason, handle.ended_well) == ("reload", True)
    elif word == "gone" and status == 0:
        assert (handle.reason, handle.ended_well) == ("stopped", True)
    else:
        assert (handle.reason, handle.ended_well) == ("crash", False)
    handle.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_whoever_is_killed_because_it_drains_too_long_was_still_ended_for_that(signals: Signals, number: int) -> None:
    def child(pipe: socket.socket) -> None:
        signal.signal(signal.SIGABRT, signal.SIG_DFL)  # and not pytest's stacks
        Pipe(pipe, Command).send(Report("draining"))
        signal.pause()

    handle = fork(signals, child)
    hear_until(handle, "draining")
    handle.stop(StopMode.GRACEFUL, "reload")
    handle.kill(number)
    assert ended(handle) == -number
    assert (handle.reason, handle.ended_well) == ("reload", False)
    handle.close()


def test_a_signal_that_is_not_ours_is_a_crash_in_a_drain_as_well(signals: Signals) -> None:
    def child(pipe: socket.socket) -> None:
        end = Pipe(pipe, Command)
        end.send(Report("draining"))
        select.select([end], [], [])
        os.kill(os.getpid(), signal.SIGVTALRM)

    handle = fork(signals, child)
    hear_until(handle, "draining")
    handle.stop(StopMode.GRACEFUL, "reload")
    assert ended(handle) == -signal.SIGVTALRM
    handle.ready_at = handle.born
    assert handle.reason == "signal"
    handle.close()


def test_a_fork_that_fails_leaves_nothing(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError("no process")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fork", no_fork)
    with pytest.raises(BlockingIOError):
        Handle(Slot(0, FIRST), FIRST, None).fork(signals)
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_backoff_grows_and_is_forgotten() -> None:
    backoff = Backoff()
    assert backoff.next(served=3.0) == 0.0  # the first death in service
    waits = [backoff.next(served=None) for _ in range(12)]
    for number, wait in enumerate(waits, start=1):
        longest = min(30.0, 0.1 * 2**number)
        assert longest / 2 <= wait <= longest
    assert backoff.next(served=59.0) >= 15
    assert backoff.next(served=60.0) == 0.0
    assert backoff.failures == 1


def test_a_boot_that_fails_waits_also_the_first_time() -> None:
    assert 0.05 <= Backoff().next(served=None) <= 0.1


def test_a_hub_is_never_waited_for_long() -> None:
    """No worker serves without it, and there is no other one."""
    backoff = Slot(0, FIRST, Role.HUB).backoff
    assert backoff.next(served=3.0) == 0.0
    assert max(backoff.next(served=None) for _ in range(12)) <= 0.5


def test_a_slot_outlives_its_children() -> None:
    slot = Slot(3, FIRST)
    first, second = Handle(slot, FIRST, None), Handle(slot, SECOND, None)
    assert (slot.name, slot.children, slot.ready) == ("worker 3", [], False)
    slot.current = first
    first.stage = "ready"
    assert slot.ready
    slot.successor = second
    assert slot.children == [first, second]
    assert slot.take_over() is first
    assert (slot.current, slot.successor, slot.leaving) == (second, None, [first])
    assert slot.generation is SECOND
    assert not slot.ready
    slot.step_down(second)
    assert (slot.current, slot.children) == (None, [first, second])
    slot.remove(first)
    slot.remove(second)
    assert slot.children == []
    assert Slot(0, FIRST, Role.ADMIN).name == "admin"
