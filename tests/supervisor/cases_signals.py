"""What a process sends to itself and its children, for test_signals.py; each case has a process of its own.

What they assert is what only they can see. What must not live here: tests.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios

from tidegate.process import forks
from tidegate.supervisor.signals import CAUGHT, Signals


def caught() -> Signals:
    """The signals of this process, which are heard from now on."""
    signals = Signals()
    signals.catch()
    return signals


def fork() -> int:
    with forks.own():
        return os.fork()


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def a_byte_each() -> None:
    signals = caught()
    for number in CAUGHT:
        os.kill(os.getpid(), number)
    assert signals.read() == bytes(CAUGHT)
    assert signals.read() == b""


def certain_end() -> int:
    """A child sends SIGTERM as long as its parent lives, which has said that it ends with 3."""
    signals = caught()
    parent = os.getpid()
    if fork() == 0:
        while os.getppid() == parent:
            os.kill(parent, signal.SIGTERM)
        os._exit(0)
    while signal.SIGTERM not in signals.read():
        pass
    signals.ignore()
    return 3


def wakes() -> None:
    signals = caught()
    signal.setitimer(signal.ITIMER_REAL, 0)
    child = fork()
    if child == 0:
        signals.settle()
        os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    assert select.select([signals.fd], [], [], 60)[0]
    os.waitpid(child, 0)
    assert signal.SIGUSR1 in signals.read()


def masked_and_ignored_before() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = caught()
    os.kill(os.getpid(), signal.SIGINT)
    assert signals.read() == bytes([signal.SIGINT])


def blocked() -> None:
    signals = caught()
    signals.block()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.read() == b""
    signals.unblock()
    assert signals.read() == bytes([signal.SIGTERM])


def child_told_to_end_before_it_has_settled() -> None:
    signals = caught()
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
    assert end_of(child) == -signal.SIGTERM
    assert set(signals.read()) <= {signal.SIGCHLD}, "the child's signal is in its parent's pipe"


def tell(number: str, disposition: str) -> None:
    """Print whether a signal has a disposition, in a program of its own."""
    print(signal.getsignal(int(number)) is signal.Handlers[disposition], flush=True)


def started(number: signal.Signals, disposition: signal.Handlers) -> int:
    """The status of a program that tells what it has inherited."""
    asked = f"from {__name__} import tell; tell('{number:d}', '{disposition.name}')"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode


def what_a_terminal_sends() -> None:
    signals = caught()
    signals.block()
    child = fork()
    if child == 0:
        signals.settle()
        for number in CAUGHT:
            if number != signal.SIGTERM:
                os.kill(os.getpid(), number)
        os._exit(started(signal.SIGQUIT, signal.Handlers.SIG_DFL))
    signals.unblock()
    assert end_of(child) == 0
    assert set(signals.read()) <= {signal.SIGCHLD}


def flood() -> None:
    signals = caught()
    for _ in range(70_000):
        os.kill(os.getpid(), signal.SIGUSR1)
    total = 0
    while data := signals.read():
        total += len(data)
    assert 4096 <= total < 70_000, total
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.read() == bytes([signal.SIGTERM])


def nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = caught()
    assert signals.ignored == {signal.SIGHUP}
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.read() == bytes([signal.SIGUSR1])
    started(signal.SIGHUP, signal.Handlers.SIG_IGN)


def background_of_a_terminal() -> None:
    """Print what a process in the background of a terminal with TOSTOP has written there."""
    child, terminal = pty.fork()
    if child == 0:
        settings = termios.tcgetattr(1)
        settings[3] |= termios.TOSTOP
        termios.tcsetattr(1, termios.TCSANOW, settings)
        if os.fork():
            os.wait()
            os._exit(0)
        os.setpgid(0, 0)  # which is not the foreground's
        signals = caught()
        assert signals.ignored == {signal.SIGTTIN, signal.SIGTTOU}
        os.write(1, b"written")
        try:
            os.read(0, 1)
        except OSError as error:
            os.write(1, f" {error.strerror} {signals.read()!r}.".encode())
        os._exit(0)
    said = b""
    while b"." not in said:
        said += os.read(terminal, 1000)
    os.waitpid(child, 0)
    print(said.decode())
