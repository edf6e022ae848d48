"""Who asks a control socket, for test_control.py: processes of other users.

What must not live here: tests; who asks by the command line (test_control.py).
"""

from __future__ import annotations

import os
import socket
import sys


def ask_as(user: str, path: str, command: str) -> str | None:
    """Become a user, ask for something and print what is answered; an error in words if it may not connect."""
    sock = socket.socket(socket.AF_UNIX)
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    try:
        sock.connect(path)
    except PermissionError:
        return "may not connect"
    try:
        sock.sendall(f'{{"command":"{command}"}}\n'.encode())
        while data := sock.recv(65536):
            sys.stdout.buffer.write(data)
    except (BrokenPipeError, ConnectionResetError):  # it does not want to hear us
        if data := sock.recv(65536):
            sys.stdout.buffer.write(data)
    return None
