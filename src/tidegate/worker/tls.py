"""TLS of the daemon, from its settings: each new worker reads the certificates again, and so does every reload.

What must not live here: TLS of an application that brings its own (app.py), connections (asyncio/transport_setup.py).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from ..config.schema import Config, settings

__all__ = ["TlsError", "make_context"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_CERTS = {None: ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class TlsError(Exception):
    """A TLS setting that cannot be used.

    Attributes:
        option: the setting's flag.
        value: the setting's value, most often a file.
        reason: what is wrong with it.
    """

    def __init__(self, option: str, value: str, reason: str) -> None:
        super().__init__(option, value, reason)
        self.option, self.value, self.reason = option, value, reason

    def __str__(self) -> str:
        return f"TLS cannot be set up: {self.option} {self.value}: {self.reason}"


def make_context(config: Config) -> ssl.SSLContext | None:
    """Return the TLS context that the settings ask for; None without `certfile`.

    Raises:
        TlsError: a file that cannot be read or is not what it should be; it names the file and the reason.
    """
    if config.certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.tls_min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if config.ciphers is not None:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError:
            _fail("ciphers", config.ciphers, "OpenSSL knows none of them")
    _load_certificate(context, config, config.certfile)
    if config.ca_certs is not None:
        _read("ca_certs", config.ca_certs, "CERTIFICATE")
        try:
            context.load_verify_locations(config.ca_certs)
        except ssl.SSLError as error:
            _fail("ca_certs", config.ca_certs, f"a certificate in it cannot be read ({_words(error)})")
    context.verify_mode = _CLIENT_CERTS[config.client_certs]
    return context


def _load_certificate(context: ssl.SSLContext, config: Config, certfile: str) -> None:
    _read("certfile", certfile, "CERTIFICATE")
    name, keyfile = ("certfile", certfile) if config.keyfile is None else ("keyfile", config.keyfile)
    _read(name, keyfile, "PRIVATE KEY")
    asked = False

    def password() -> str:
        # Without a password too: OpenSSL would ask the terminal.
        nonlocal asked
        asked = True
        return config.keyfile_password or ""

    try:
        context.load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            _fail(name, keyfile, f"it is not the key of the certificate in {certfile}")
        if asked and config.keyfile_password is None:
            _fail(name, keyfile, "the key is encrypted, and there is no --keyfile-password")
        if asked:
            _fail(name, keyfile, "the key cannot be decrypted: --keyfile-password is wrong")
        if _certificate_is_good(certfile):
            _fail(name, keyfile, f"the private key cannot be read ({_words(error)})")
        _fail("certfile", certfile, f"the certificate cannot be read, or is too weak ({_words(error)})")
    except ValueError as error:  # a password that is too long
        _fail("keyfile_password", "...", str(error))


def _certificate_is_good(certfile: str) -> bool:
    """Return whether OpenSSL can load the certificate: its errors do not tell which file is wrong."""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certfile)
    except ssl.SSLError:
        return False
    return True


def _read(name: str, path: str, what: str) -> None:
    """Check that a file can be read and is PEM of some kind; ssl's own errors do not name it."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        _fail(name, path, (error.strerror or str(error)).lower())
    if b"-----BEGIN " not in text:
        _fail(name, path, f"it is not PEM: there is no line with -----BEGIN {what}-----")
    if f"{what}-----".encode() not in text:
        more = ", and no --keyfile names it" if name == "certfile" and what == "PRIVATE KEY" else ""
        article = "private key" if what == "PRIVATE KEY" else "certificate"
        _fail(name, path, f"there is no {article} in it{more}")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _fail(name: str, value: str, reason: str) -> NoReturn:
    raise TlsError(settings()[name].flag, value, reason) from None
