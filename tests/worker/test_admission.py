"""From settings to admission control: who is trusted, which limits there are, whose TLS it is.

What must not live here: what gates do (tests/asyncio/test_admission.py), errors of certificates (test_tls.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tidegate._core.counters import Row
from tidegate.config.schema import Config
from tidegate.limits import RATE
from tidegate.worker.admission import make_admission
from tidegate.worker.tls import TlsError, make_context


def test_by_default_nobody_is_trusted_and_only_descriptors_are_a_limit() -> None:
    admission = make_admission(Config(application="app:handler"), None, None, Row())
    assert not admission.trusted
    assert not admission.needs_setup
    assert not admission.limiter.by_address
    assert not admission.limiter.full()


def test_the_limit_of_all_connections_is_read_from_the_row() -> None:
    row = Row()
    admission = make_admission(Config(application="app:handler", max_connections=1, workers=4), None, None, row)
    row.accepted()
    assert not admission.limiter.full()
    row.accepted()
    assert admission.limiter.full()


def test_limits_of_addresses_are_shared() -> None:
    config = Config(application="app:handler", max_connections_per_address=1, handshake_rate=(4.0, 1), workers=4)
    limiter = make_admission(config, make_context(config), None, Row()).limiter
    assert limiter.enter(b"a", 0) is None
    limiter.leave(b"a", 0)
    assert limiter.enter(b"a", 0.9) == (RATE, 1)
    assert limiter.enter(b"a", 1) is None


def test_proxies() -> None:
    """A worker's admission control trusts the configured proxies, and reads the PROXY protocol."""
    config = Config(application="app:handler", trusted_proxies=("10.0.0.0/8",), proxy_protocol=True)
    admission = make_admission(config, make_context(config), None, Row())
    assert "10.1.1.1" in admission.trusted
    assert admission.needs_setup


def test_one_tls(tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert make_admission(Config(application="app:handler"), None, own, Row()).tls is own
    config = Config(application="app:handler", certfile=str(file))
    assert make_admission(config, make_context(config), None, Row()).tls is not None
    with pytest.raises(TlsError, match=r"--certfile .*both\.pem: the App has a TLS context as well"):
        make_admission(config, make_context(config), own, Row())
