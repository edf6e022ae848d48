"""A worker's admission control, made from the settings: limits, trusted proxies, TLS.

What must not live here: what it decides (asyncio/admission.py), how TLS is set up (tls.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.counters import Row
from ..asyncio.admission import Admission
from ..config.schema import Config
from ..limits import Limiter
from ..networks import Networks
from .tls import TlsError

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["make_admission"]


def make_admission(config: Config, tls: SSLContext | None, of_application: SSLContext | None, row: Row) -> Admission:
    """Make the admission control of all servers of a worker.

    Args:
        config: the settings.
        tls: the TLS context that they make (tls.py).
        of_application: the application's own TLS context.
        row: where the worker counts.

    Raises:
        TlsError: TLS cannot be set up.
    """
    if tls is not None and of_application is not None:
        raise TlsError("--certfile", str(config.certfile), "the App has a TLS context as well: leave one of them out")
    rate, burst = config.handshake_rate if isinstance(config.handshake_rate, tuple) else (config.handshake_rate, None)
    limiter = Limiter(
        connections=config.max_connections,
        of_all=lambda: row.connections_of_all,
        per_address=config.max_connections_per_address,
        rate=rate,
        burst=burst,
        workers=config.workers if isinstance(config.workers, int) else 1,
    )
    return Admission(
        limiter,
        trusted=Networks(config.trusted_proxies),
        proxy_protocol=config.proxy_protocol,
        header=config.forwarded_header,
        tls=tls or of_application,
    )
