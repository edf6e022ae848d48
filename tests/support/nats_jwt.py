"""Who a NATS server in operator mode lets in: an operator, its accounts and their users, by keys and signed claims.

    Operator    signs accounts, and writes the settings of a server that trusts it
    Account     signs users, and writes their credentials files

What must not live here: the server (nats_server.py), tests.
"""

from __future__ import annotations

import json
import os
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import nkeys

__all__ = ["Account", "Operator"]


class Key:
    """A key pair, and what it signs.

    Attributes:
        seed: the private half, as text.
        public: the other one.
    """

    def __init__(self, kind: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), kind).decode()
        self._pair = nkeys.from_seed(self.seed.encode())
        self.public: str = self._pair.public_key.decode()

    def claim(self, name: str, subject: str, kind: str, **claims: Any) -> str:
        """Return a JWT that says something of a subject."""
        expires = claims.pop("expires", None)
        body = {
            "jti": name,
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {"type": kind, "version": 2, **claims},
            **({"exp": expires} if expires is not None else {}),
        }
        head = _encode(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        text = f"{head}.{_encode(json.dumps(body).encode())}"
        return f"{text}.{_encode(self._pair.sign(text.encode()))}"


class Account:
    """An account, which has JetStream without limits.

    Parameters:
        operator: who signs it.
        name: what it is called.
        has_jetstream: whether it may store; the system's own account may not.
    """

    def __init__(self, operator: Key, name: str, has_jetstream: bool = True) -> None:
        self.key = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        stores = ("mem_storage", "disk_storage", "streams", "consumer")
        limits = dict.fromkeys((*names, *(stores if has_jetstream else ())), -1)
        self.jwt = operator.claim(name, self.key.public, "account", limits={**limits, "wildcards": True})

    def credentials(self, file: Path, **claims: Any) -> Path:
        """Write the credentials file of a new user, with more claims."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        rights: dict[str, Any] = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
        parts = {
            "NATS USER JWT": self.key.claim("user", user.public, "user", **rights | claims),
            "USER NKEY SEED": user.seed,
        }
        text = "".join(f"-----BEGIN {name}-----\n{part}\n------END {name}------\n\n" for name, part in parts.items())
        file.write_text(text, encoding="utf-8")
        return file


class Operator:
    """An operator with an account for applications.

    Attributes:
        account: that one.
        settings: of a server that trusts the operator.
    """

    def __init__(self) -> None:
        key = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self.account, system = Account(key, "applications"), Account(key, "system", has_jetstream=False)
        self.settings = [
            f"operator: {key.claim('operator', key.public, 'operator')}",
            f"system_account: {system.key.public}",
            "resolver: MEMORY",
            f"resolver_preload: {{ {self.account.key.public}: {self.account.jwt}, {system.key.public}: {system.jwt} }}",
        ]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
