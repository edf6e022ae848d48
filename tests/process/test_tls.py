"""A daemon that serves wss://, its certificates renewed by a reload, and certificates that cannot be.

What must not live here: every error of a certificate (tests/worker/test_tls.py).
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.support.harness import ECHO, Daemon, wait_until
from tests.support.patience import PATIENCE
from tidegate.asyncio.client import ClientConnection, connect
from tidegate.exceptions import ConnectionClosed, InvalidMessage

NAMES = """
    async def handler(websocket):
        certificate = websocket.transport.get_extra_info("peercert") or {}
        await websocket.send(repr(certificate.get("subjectAltName")))
"""
SETTLE = ("--settle", "0.1")
FAILURES = (OSError, EOFError, InvalidMessage, ConnectionClosed)


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Path:
    """A file with a certificate and its key."""
    return renew(authority, tmp_path / "both.pem")


def renew(authority: trustme.CA, path: Path) -> Path:
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def spoil(path: Path) -> None:
    path.write_text("-----BEGIN CERTIFICATE-----\n")


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def serial(websocket: ClientConnection) -> int:
    """The number of the server's certificate."""
    found = websocket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found).serial_number


async def test_wss(authority: trustme.CA, certificate: Path) -> None:
    """The daemon serves TLS from its least version on, and counts failed handshakes."""
    with Daemon(ECHO, "--certfile", str(certificate), "--tls-min-version", "1.3") as daemon:
        uri = daemon.uri.replace("ws:", "wss:")
        async with connect(uri, ssl=client_tls(authority)) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
        older = client_tls(authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(FAILURES):
            await connect(uri, ssl=older)
        with pytest.raises(FAILURES):
            await connect(daemon.uri)
        await asyncio.to_thread(daemon.wait_metric, "tidegate_handshakes_total", 2, result="tls_failed")
        assert daemon.stop() == 0


@pytest.mark.parametrize("wanted", ["optional", "required"])
async def test_certificates_of_clients(authority: trustme.CA, certificate: Path, tmp_path: Path, wanted: str) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = ("--certfile", str(certificate), "--ca-certs", str(tmp_path / "ca.pem"), "--client-certs", wanted)
    with Daemon(NAMES, *options) as daemon:
        uri = daemon.uri.replace("ws:", "wss:")
        with_one = client_tls(authority)
        authority.issue_cert("client.example").configure_cert(with_one)
        async with connect(uri, ssl=with_one) as websocket:
            assert await websocket.recv() == "(('DNS', 'client.example'),)"
        if wanted == "optional":
            async with connect(uri, ssl=client_tls(authority)) as websocket:
                assert await websocket.recv() == "None"
        else:
            with pytest.raises(FAILURES):
                await connect(uri, ssl=client_tls(authority))
        stranger = client_tls(authority)
        trustme.CA().issue_cert("client.example").configure_cert(stranger)
        with pytest.raises(FAILURES):
            await connect(uri, ssl=stranger)


async def test_a_reload_renews_certificates_and_disturbs_nobody(authority: trustme.CA, certificate: Path) -> None:
    with Daemon(ECHO, "--certfile", str(certificate), *SETTLE) as daemon:
        uri, tls = daemon.uri.replace("ws:", "wss:"), client_tls(authority)
        async with connect(uri, ssl=tls) as old:
            before = serial(old)
            # One that cannot be, first: the daemon goes on with what it has.
            spoil(certificate)
            daemon.signal(signal.SIGHUP)
            reason = f"TLS cannot be set up: --certfile {certificate}: there is no private key in it"
            await asyncio.to_thread(wait_until, lambda: reason in daemon.log, reason)
            await old.send("still there")
            assert await old.recv() == "still there"
            async with connect(uri, ssl=tls) as websocket:
                assert serial(websocket) == before
            renew(authority, certificate)
            await asyncio.to_thread(wait_until, lambda: "reload: failed" in daemon.log, "its end")
            daemon.signal(signal.SIGHUP)
            await asyncio.wait_for(old.wait_closed(), PATIENCE)
            assert old.close_code == 1001
        async with connect(uri, ssl=tls) as new:
            assert serial(new) != before
        assert daemon.stop() == 0


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_certificate_that_cannot_be(certificate: Path, command: str) -> None:
    shutil.copy(certificate, certificate.with_name("cert.pem"))
    certificate.with_name("key.pem").write_text("no key")
    options = ("--certfile", str(certificate.with_name("cert.pem")), "--keyfile", str(certificate.with_name("key.pem")))
    with Daemon(ECHO, *options, command=command, wait=False) as daemon:
        assert daemon.wait() == 3
        assert f"--keyfile {certificate.with_name('key.pem')}: it is not PEM" in daemon.log


def test_options_that_need_each_other() -> None:
    command = [sys.executable, "-m", "tidegate", "serve", "app:handler", "--keyfile", "key.pem"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 2
    assert "--keyfile 'key.pem' is not allowed (a key needs its certificate): give --certfile as well" in result.stderr
