"""The reverse proxies of deploy/, each run as its file says, in front of a daemon that runs as the file's comment says.

    with Front(KINDS["nginx"]) as front:
        async with connect(front.uri) as websocket: ...

Paths, ports and users are replaced, and nothing else: `derive` fails when one of them is no longer in the file. The
processes run in the foreground, below the test, on free ports. What must not live here: test cases.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trustme

from tests.support.harness import ROOT, Daemon, free_port, require, wait_until
from tests.support.patience import PATIENCE

DEPLOY = ROOT / "deploy"

# Says what it knows of its client, or closes as it is asked to, or echoes.
APPLICATION = """
    import json

    async def handler(websocket):
        path = websocket.request.path
        if path == "/client":
            headers = dict(websocket.request.headers.raw_items())
            await websocket.send(json.dumps([*websocket.remote_address[:2], headers]))
        if path == "/closes":
            await websocket.close(4321, "as asked")
        async for message in websocket:
            await websocket.send(message)
"""


@dataclass(frozen=True)
class Kind:
    """A proxy of one file of deploy/.

    Attributes:
        program: what it runs, as on PATH.
        daemon: how tidegate runs behind it.
        command: writes the configuration for a Front; returns the command that runs it.
        reload: has the running proxy read its configuration again.
        tls_ends_here: otherwise in the daemon.
    """

    program: str
    daemon: Sequence[str]
    command: Callable[[Front], list[str]]
    reload: Callable[[Front], None]
    tls_ends_here: bool = True


class Front:
    """A proxy of `kind`, with a daemon behind it and a certificate for localhost.

    Attributes: daemon, uri, directory, port (of TLS), other_port, admin_port.
    """

    def __init__(self, kind: Kind, *options: str, changes: Mapping[str, str] | None = None) -> None:
        """`options`: more of the daemon's; `changes`: more of the proxy's file, where they are in it."""
        self.kind, self.options, self.changes = kind, options, changes or {}

    def __enter__(self) -> Self:
        require(find(self.kind.program), self.kind.program)
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-front-")))
            # What other users (nginx's workers) may look into, wherever they do.
            self.directory.chmod(0o755)
            self._certificate()
            # Clients of ours find it by the environment, as any program does.
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("SSL_CERT_FILE", str(self.directory / "ca.pem"))
            options = [option.format(directory=self.directory) for option in (*self.kind.daemon, *self.options)]
            if not self.kind.tls_ends_here:
                options += ["--certfile", str(self.directory / "cert.pem")]
            self.daemon = stack.enter_context(Daemon(APPLICATION, *options, "--settle", "0.1", workers=2))
            self.port, self.other_port, self.admin_port = free_port(), free_port(), free_port()
            self.uri = f"wss://localhost:{self.port}"
            self.log = self.directory / "front.log"
            self.command = self.kind.command(self)
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    self.command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
                )
            stack.callback(self._end)
            wait_until(self._accepts, f"{self.kind.program} on port {self.port}\n{self.logged()}")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"log of {' '.join(self.command)}:\n{self.logged()}")
        self._stack.__exit__(kind, error, trace)

    @property
    def env(self) -> dict[str, str]:
        """Of the proxy: what it keeps is kept in the folder."""
        return {**os.environ, "HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)}

    def logged(self) -> str:
        """The end of what it wrote to its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def reload(self) -> None:
        """Have it read its configuration again."""
        self.kind.reload(self)

    def _certificate(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        certificate = authority.issue_cert("localhost")
        # One file for who wants one, two for who wants two.
        certificate.private_key_and_cert_chain_pem.write_to_path(self.directory / "cert.pem")
        certificate.private_key_pem.write_to_path(self.directory / "key.pem")

    def _accepts(self) -> bool:
        assert self.process.poll() is None, f"it ended with {self.process.poll()}: {self.logged()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def find(program: str) -> str | None:
    """The program's path. Debian keeps servers where only root's PATH leads."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def derive(text: str, changes: Mapping[str, str]) -> str:
    """The text with `changes`, each of which it must have."""
    for before, after in changes.items():
        assert before in text, f"{before!r} is not in the file any more"
        text = text.replace(before, after)
    return text


def read(name: str) -> str:
    """A file of deploy/."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def write(front: Front, name: str, text: str) -> None:
    """A file for the proxy, with what this test has changed."""
    for before, after in front.changes.items():
        text = text.replace(before, after)
    (front.directory / name).write_text(text, encoding="utf-8")


def nginx(front: Front) -> list[str]:
    """nginx.conf and tidegate.conf."""
    folder = front.directory
    paths = "".join(
        f" {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(derive(read("nginx/nginx.conf"), places(folder) | {"http {": f"http {{{paths}"}))
    site = {
        "server 127.0.0.1:8765": f"server {front.daemon.address}",
        "listen 80 ": f"listen 127.0.0.1:{front.other_port} ",
        "listen 443 ": f"listen 127.0.0.1:{front.port} ",
        "/etc/nginx/tls": str(folder),
    }
    write(front, "tidegate.conf", derive(read("nginx/tidegate.conf"), site))
    return run_nginx(front)


def nginx_unix(front: Front) -> list[str]:
    """As nginx, with the line of the Unix socket in place of the other."""
    tcp, unix = "    server 127.0.0.1:8765 ", "    # server unix:/run/tidegate/web.sock;"
    assert unix in read("nginx/tidegate.conf")
    front.changes = {
        tcp.replace("127.0.0.1:8765", front.daemon.address): "    # server ",
        unix: f"    server unix:{front.directory}/web.sock;",
        **front.changes,
    }
    return nginx(front)


def nginx_stream(front: Front) -> list[str]:
    """stream.conf, beside what nginx.conf says about processes."""
    folder = front.directory
    processes, http, _ = derive(read("nginx/nginx.conf"), places(folder)).partition("http {")
    assert http
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    require(module.exists(), "libnginx-mod-stream")
    site = {"server 127.0.0.1:8765": f"server {front.daemon.address}", "listen 443 ": f"listen 127.0.0.1:{front.port} "}
    stream = derive(read("nginx/stream.conf"), site)
    write(front, "nginx.conf", f"load_module {module};\n{processes}{stream}")
    return run_nginx(front)


def places(folder: Path) -> dict[str, str]:
    """Where nginx writes: its log says when it starts workers."""
    return {
        "/var/log/nginx/error.log": f"{folder}/error.log notice",
        "/var/log/nginx/access.log": f"{folder}/access.log",
        "/run/nginx.pid": f"{folder}/pid",
    }


def run_nginx(front: Front) -> list[str]:
    """In the foreground, as whoever runs the test."""
    user = " user root;" if os.geteuid() == 0 else ""
    folder = str(front.directory)
    return [str(find("nginx")), "-p", folder, "-c", f"{folder}/nginx.conf", "-g", f"daemon off;{user}"]


def hang_up(front: Front) -> None:
    """nginx: new workers, and the log says when the master is done."""
    before = started(front)
    front.process.send_signal(signal.SIGHUP)
    wait_until(lambda: started(front) > before, "new workers of nginx")


def started(front: Front) -> int:
    """Workers of nginx that were started so far."""
    return (front.directory / "error.log").read_text(encoding="utf-8").count("start worker process ")


def haproxy(name: str) -> Callable[[Front], list[str]]:
    """One of the two files."""

    def command(front: Front) -> list[str]:
        folder = front.directory
        text = read(f"haproxy/{name}")
        changes = {
            "    log /dev/log local0\n": "    log stderr format raw local0\n",
            "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n": "",
            "maxconn 40000": "maxconn 1000",  # within the descriptors that anybody may have
            "bind :443 ": f"bind 127.0.0.1:{front.port} ",
            "127.0.0.1:8765 ": f"{front.daemon.address} ",
            "check port 9465": f"check port {front.daemon.admin.rpartition(':')[2]}",
        }
        if front.kind.tls_ends_here:
            changes |= {"/etc/haproxy/tls/": f"{folder}/cert.pem", "127.0.0.1:8405": f"127.0.0.1:{front.other_port}"}
        comments = "".join(line for line in text.splitlines(True) if line.lstrip().startswith("#"))
        assert comments
        plain = "".join(line for line in text.splitlines(True) if not line.lstrip().startswith("#"))
        write(front, "haproxy.cfg", derive(plain, changes))
        return [str(find("haproxy")), "-W", "-db", "-f", f"{folder}/haproxy.cfg"]

    return command


def signal_master(front: Front) -> None:
    """HAProxy: SIGUSR2 to the master, which says when the next worker is there."""
    before = front.log.read_text().count("New worker")
    front.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: front.log.read_text().count("New worker") > before, "a new worker of HAProxy")


def caddy_version() -> tuple[int, ...]:
    """Of the Caddy that is installed."""
    program = find("caddy")
    require(program, "caddy")
    said = subprocess.run([str(program), "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))


def caddy(front: Front) -> list[str]:
    """Caddyfile, without what this Caddy is too old for, as the file says."""
    folder = front.directory
    text = "".join(line for line in read("caddy/Caddyfile").splitlines(True) if not line.lstrip().startswith("#"))
    changes = {
        "{\n\tservers {": f"{{\n\tadmin 127.0.0.1:{front.admin_port}\n\thttp_port {front.other_port}\n\tservers {{",
        "example.org {": f"localhost:{front.port} {{\n\ttls {folder}/cert.pem {folder}/key.pem",
        "127.0.0.1:8765": front.daemon.address,
        "health_port 9465": f"health_port {front.daemon.admin.rpartition(':')[2]}",
    }
    if caddy_version() < (2, 7):
        changes["\t\tstream_close_delay 1h\n"] = ""
    write(front, "Caddyfile", derive(text, changes))
    return [str(find("caddy")), "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


def caddy_reload(front: Front) -> None:
    """Through its admin address; --force, because nothing has changed."""
    command = [str(find("caddy")), "reload", "--config", f"{front.directory}/Caddyfile", "--adapter", "caddyfile"]
    command += ["--address", f"127.0.0.1:{front.admin_port}", "--force"]
    subprocess.run(command, env=front.env, capture_output=True, check=True, timeout=PATIENCE)


HEADER = ["--trusted-proxies", "127.0.0.1"]
UNIX = ["--bind", "unix:{directory}/web.sock", "--trusted-proxies", "unix", "--umask", "007"]
PROXY = ["--proxy-protocol", "--trusted-proxies", "127.0.0.1"]

KINDS = {
    "nginx": Kind("nginx", HEADER, nginx, hang_up),
    "nginx-unix": Kind("nginx", UNIX, nginx_unix, hang_up),
    "nginx-stream": Kind("nginx", PROXY, nginx_stream, hang_up, tls_ends_here=False),
    "haproxy": Kind("haproxy", HEADER, haproxy("haproxy.cfg"), signal_master),
    "haproxy-tcp": Kind("haproxy", PROXY, haproxy("haproxy-tcp.cfg"), signal_master, tls_ends_here=False),
    "caddy": Kind("caddy", HEADER, caddy, caddy_reload),
}
