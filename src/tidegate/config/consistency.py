"""Whether settings fit together, where each alone is allowed.

    check    raises ConfigError for those that do not

What must not live here: what one setting allows (types.py), what this machine allows (prerequisites.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bind import Tcp
from .errors import ConfigError
from .setting import Setting

__all__ = ["check"]


def check(config: Any, settings: Mapping[str, Setting]) -> None:
    """Check the settings of a `Config` beside each other.

    Raises:
        ConfigError: two of them do not fit.
    """
    if config.drain is not None and config.drain >= config.graceful_timeout and config.drain > 0:
        setting, limit = settings["drain"], settings["graceful_timeout"]
        allowed = f"less than {limit.flag}, which is {limit.write(config.graceful_timeout)}"
        raise ConfigError(setting.flag, setting.write(config.drain), allowed)
    if config.reload_on_change and config.preload:
        setting, other = settings["reload_on_change"], settings["preload"]
        reason = f"with {other.flag} a reload takes no new code"
        raise ConfigError(setting.flag, "true", reason=reason, remedy=f"leave out {other.flag}")
    if config.bus_memory < 32 * config.bus_message_limit:
        setting, needed = settings["bus_message_limit"], settings["bus_memory"]
        allowed = f"{needed.flag} {needed.write(32 * config.bus_message_limit)} as well"
        raise ConfigError(setting.flag, setting.write(config.bus_message_limit), allowed, "the history has no room")
    _check_admin(config, settings)
    _check_entrance(config, settings)


def _check_admin(config: Any, settings: Mapping[str, Setting]) -> None:
    """Check that the admin address has what it needs, and that its process can publish."""
    if config.admin is not None and not config.admin.loopback and config.admin_token is None:
        setting, needed = settings["admin"], settings["admin_token"]
        reason = "other machines could read the daemon's state"
        raise ConfigError(setting.flag, setting.write(config.admin), f"{needed.flag} as well", reason)
    if config.publish_token is None:
        return
    for name, met, wanted in (
        ("admin", config.admin is not None, "HOST:PORT"),
        ("bus", not config.bus.startswith("memory:"), "local://"),  # each worker has a bus of its own
        ("control", config.control is not None or not config.bus.startswith("local:"), "PATH"),
    ):
        if not met:
            setting = settings[name]
            reason = f"{setting.flag} is {setting.show(getattr(config, name))}"
            raise ConfigError(settings["publish_token"].flag, "...", f"{setting.flag} {wanted} as well", reason)


def _check_entrance(config: Any, settings: Mapping[str, Setting]) -> None:
    """Check that what proxies and TLS need is given as well."""
    tls, authorities = config.certfile is not None, config.ca_certs is not None
    # Peers on Unix sockets are trusted.
    trusted = config.trusted_proxies or not any(isinstance(address, Tcp) for address in config.bind)
    clients = config.client_certs is not None
    needs = [
        ("keyfile", config.keyfile is not None, "certfile", tls, "a key needs its certificate"),
        ("ca_certs", authorities, "certfile", tls, "only TLS has client certificates"),
        ("client_certs", clients, "certfile", tls, "only TLS has client certificates"),
        ("client_certs", clients, "ca_certs", authorities, "there is no authority to verify them"),
        ("proxy_protocol", config.proxy_protocol, "trusted_proxies", trusted, "no peer on TCP may send the header"),
    ]
    for name, given, other, met, reason in needs:
        if given and not met:
            setting, needed = settings[name], settings[other]
            raise ConfigError(setting.flag, setting.write(getattr(config, name)), f"{needed.flag} as well", reason)
