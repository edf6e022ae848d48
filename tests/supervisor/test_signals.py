"""Signals as bytes in a pipe, and what a child makes of those that came while it was forked.

Dispositions belong to a whole process, so each case has a process of its own.
What must not live here: what the supervisor does about a signal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.support.patience import PATIENCE
from tidegate.supervisor.signals import name_of

PRELUDE = """
import os, select, signal, subprocess, sys, time
from tidegate.process import forks
from tidegate.supervisor.signals import HEARD, Signals

def fork():
    with forks.own():
        return os.fork()

signals = Signals()
signals.catch()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        start_new_session=True,  # and so without a terminal
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    return done


def test_each_signal_is_a_byte_in_its_order() -> None:
    done = run("""
        for number in HEARD:
            os.kill(os.getpid(), number)
        assert signals.read() == bytes(HEARD), signals.read()
        assert signals.read() == b""
    """)
    assert done.returncode == 0


def test_no_signal_changes_an_end_that_is_certain() -> None:
    """Not even where the interpreter has given its handlers up."""
    done = run("""
        parent = os.getpid()
        if fork() == 0:
            while os.getppid() == parent:
                os.kill(parent, signal.SIGTERM)
            os._exit(0)
        while signal.SIGTERM not in signals.read():
            pass
        signals.ignore()
        sys.exit(3)
    """)
    assert done.returncode == 3


def test_a_signal_wakes_whoever_waits_for_the_descriptor() -> None:
    done = run("""
        signal.setitimer(signal.ITIMER_REAL, 0)
        child = fork()
        if child == 0:
            signals.settle()
            os.kill(os.getppid(), signal.SIGUSR1)
            os._exit(0)
        assert select.select([signals.fd], [], [], 60)[0]
        os.waitpid(child, 0)
        assert signal.SIGUSR1 in signals.read()
    """)
    assert done.returncode == 0


def test_signals_that_the_parent_had_masked_or_ignored_are_heard() -> None:
    done = run("""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        again = Signals()
        again.catch()
        os.kill(os.getpid(), signal.SIGINT)
        assert again.read() == bytes([signal.SIGINT])
    """)
    assert done.returncode == 0


def test_blocked_signals_wait() -> None:
    done = run("""
        signals.block()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.read() == b""
        signals.unblock()
        assert signals.read() == bytes([signal.SIGTERM])
    """)
    assert done.returncode == 0


def test_a_child_that_is_told_to_end_before_it_has_settled_ends_when_it_has() -> None:
    done = run("""
        reader, writer = os.pipe()
        signals.block()
        child = fork()
        if child == 0:
            os.read(reader, 1)  # the signal has been sent by now, and waits
            os.write(1, b"waited ")
            signals.settle()
            os.write(1, b"went on")
            os._exit(0)
        signals.unblock()
        os.kill(child, signal.SIGTERM)
        os.write(writer, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == -signal.SIGTERM, status
        assert set(signals.read()) <= {signal.SIGCHLD}, "the child's signal is in its parent's pipe"
    """)
    assert (done.returncode, done.stdout) == (0, "waited ")


def test_a_child_ignores_what_a_terminal_sends_and_hands_no_ignoring_on() -> None:
    done = run("""
        signals.block()
        child = fork()
        if child == 0:
            signals.settle()
            for number in HEARD:
                if number != signal.SIGTERM:
                    os.kill(os.getpid(), number)
            program = "import signal; print(signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL, flush=True)"
            os._exit(subprocess.run([sys.executable, "-c", program]).returncode)
        signals.unblock()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert set(signals.read()) <= {signal.SIGCHLD}
    """)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_a_flood_fills_the_pipe_and_nothing_else() -> None:
    done = run("""
        for _ in range(70_000):
            os.kill(os.getpid(), signal.SIGUSR1)
        total = 0
        while data := signals.read():
            total += len(data)
        assert 4096 <= total < 70_000, total
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.read() == bytes([signal.SIGTERM])
    """)
    assert done.returncode == 0


def test_names() -> None:
    assert name_of(15) == "SIGTERM"
    assert name_of(63) == "63"


def test_what_nohup_ignores_stays_ignored_and_goes_on_to_programs() -> None:
    done = run("""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        again = Signals()
        again.catch()
        assert again.ignored == {signal.SIGHUP}
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert again.read() == bytes([signal.SIGUSR1])
        program = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)"
        subprocess.run([sys.executable, "-c", program])
    """)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_in_the_background_of_a_terminal_writing_stops_nobody() -> None:
    """With `stty tostop` a write from the background gets SIGTTOU, and a read SIGTTIN."""
    done = run("""
        import pty
        child, terminal = pty.fork()
        if child == 0:
            import fcntl, termios
            settings = termios.tcgetattr(1)
            settings[3] |= termios.TOSTOP
            termios.tcsetattr(1, termios.TCSANOW, settings)
            if os.fork():
                os.wait()
                os._exit(0)
            os.setpgid(0, 0)  # which is not the foreground's
            there = Signals()
            there.catch()
            assert there.ignored == {signal.SIGTTIN, signal.SIGTTOU}
            os.write(1, b"written")
            try:
                os.read(0, 1)
            except OSError as error:
                os.write(1, f" {error.strerror} {there.read()}.".encode())
            os._exit(0)
        said = b""
        while b"." not in said:
            said += os.read(terminal, 1000)
        os.waitpid(child, 0)
        print(said.decode())
    """)
    assert done.stdout == "written Input/output error b''.\n"
