"""TLS from settings: what works, and which file and reason an error names.

What must not live here: connections by TLS (tests/asyncio/test_transport_setup.py), daemons
(tests/process/test_tls.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tidegate.config.schema import Config
from tidegate.worker.tls import TlsError, make_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates and keys, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    mine, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    key, chain = mine.private_key_pem.bytes(), b"".join(blob.bytes() for blob in mine.cert_chain_pems)
    encrypted = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    broken = b"-----BEGIN %s-----\nAAAA\n-----END %s-----\n"
    for name, data in {
        "cert.pem": chain,
        "key.pem": key,
        "both.pem": key + chain,
        "other.pem": other.private_key_pem.bytes(),
        "encrypted.pem": encrypted,
        "ca.pem": authority.cert_pem.bytes(),
        "text": b"hello",
        "empty": b"",
        "broken-cert.pem": broken.replace(b"%s", b"CERTIFICATE"),
        "broken-key.pem": broken.replace(b"%s", b"PRIVATE KEY"),
    }.items():
        (folder / name).write_bytes(data)
    return folder


def context(files: Path, **settings: Any) -> ssl.SSLContext:
    paths = ("certfile", "keyfile", "ca_certs")
    given = {name: str(files / value) if name in paths else value for name, value in settings.items()}
    made = make_context(Config(application="app:handler", **given))
    assert made is not None
    return made


def test_without_a_certificate_there_is_no_tls() -> None:
    assert make_context(Config(application="app:handler")) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"certfile": "both.pem"},
        {"certfile": "cert.pem", "keyfile": "key.pem"},
        {"certfile": "cert.pem", "keyfile": "encrypted.pem", "keyfile_password": "secret"},
        {"certfile": "both.pem", "keyfile_password": "not needed"},
    ],
)
def test_certificates_and_keys(files: Path, settings: dict[str, str]) -> None:
    made = context(files, **settings)
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.verify_mode == ssl.CERT_NONE
    assert made.options & ssl.OP_NO_RENEGOTIATION


def test_versions_ciphers_and_certificates_of_clients(files: Path) -> None:
    made = context(
        files,
        certfile="both.pem",
        tls_min_version="1.3",
        ciphers="ECDHE+AESGCM",
        ca_certs="ca.pem",
        client_certs="required",
    )
    assert made.minimum_version == ssl.TLSVersion.TLSv1_3
    assert made.verify_mode == ssl.CERT_REQUIRED
    assert len(made.get_ca_certs()) == 1
    assert not any("CHACHA20" in cipher["name"] for cipher in made.get_ciphers() if cipher["protocol"] != "TLSv1.3")
    assert context(files, certfile="both.pem", ca_certs="ca.pem", client_certs="optional").verify_mode == 1


@pytest.mark.parametrize(
    ("settings", "option", "file", "reason"),
    [
        ({"certfile": "none.pem"}, "--certfile", "none.pem", "no such file or directory"),
        ({"certfile": "."}, "--certfile", ".", "is a directory"),
        ({"certfile": "text"}, "--certfile", "text", "not PEM: there is no line with -----BEGIN CERTIFICATE-----"),
        ({"certfile": "empty"}, "--certfile", "empty", "it is not PEM"),
        ({"certfile": "key.pem"}, "--certfile", "key.pem", "there is no certificate in it"),
        ({"certfile": "cert.pem"}, "--certfile", "cert.pem", "no private key in it, and no --keyfile names it"),
        ({"certfile": "cert.pem", "keyfile": "cert.pem"}, "--keyfile", "cert.pem", "there is no private key in it"),
        ({"certfile": "cert.pem", "keyfile": "none.pem"}, "--keyfile", "none.pem", "no such file or directory"),
        ({"certfile": "cert.pem", "keyfile": "text"}, "--keyfile", "text", "-----BEGIN PRIVATE KEY-----"),
        (
            {"certfile": "cert.pem", "keyfile": "other.pem"},
            "--keyfile",
            "other.pem",
            "not the key of the certificate in",
        ),
        (
            {"certfile": "cert.pem", "keyfile": "encrypted.pem"},
            "--keyfile",
            "encrypted.pem",
            "the key is encrypted, and there is no --keyfile-password",
        ),
        (
            {"certfile": "cert.pem", "keyfile": "encrypted.pem", "keyfile_password": "wrong"},
            "--keyfile",
            "encrypted.pem",
            "the key cannot be decrypted: --keyfile-password is wrong",
        ),
        (
            {"certfile": "cert.pem", "keyfile": "encrypted.pem", "keyfile_password": "x" * 5000},
            "--keyfile-password",
            "...",
            "password cannot be longer",
        ),
        (
            {"certfile": "broken-cert.pem", "keyfile": "key.pem"},
            "--certfile",
            "broken-cert.pem",
            "the certificate cannot be read",
        ),
        (
            {"certfile": "cert.pem", "keyfile": "broken-key.pem"},
            "--keyfile",
            "broken-key.pem",
            "the private key cannot be read",
        ),
        ({"certfile": "both.pem", "ca_certs": "text"}, "--ca-certs", "text", "it is not PEM"),
        ({"certfile": "both.pem", "ca_certs": "key.pem"}, "--ca-certs", "key.pem", "there is no certificate in it"),
        ({"certfile": "both.pem", "ca_certs": "broken-cert.pem"}, "--ca-certs", "broken-cert.pem", "cannot be read"),
        ({"certfile": "both.pem", "ciphers": "NONSENSE"}, "--ciphers", "NONSENSE", "OpenSSL knows none of them"),
    ],
)
def test_errors_name_the_file_and_the_reason(
    files: Path, settings: dict[str, str], option: str, file: str, reason: str
) -> None:
    with pytest.raises(TlsError) as caught:
        context(files, **settings)
    assert caught.value.option == option
    assert caught.value.value in (file, str(files / file))
    assert reason in caught.value.reason
    assert str(caught.value) == f"TLS cannot be set up: {option} {caught.value.value}: {caught.value.reason}"
    assert "secret" not in str(caught.value)
