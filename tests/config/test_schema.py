"""Settings: how each is declared, and what follows from others.

What must not live here: the command line (tests/cli/test_serve.py), how values are written (test_types.py).
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from tidegate.channels import ChannelLimits
from tidegate.config.bind import Tcp, Unix
from tidegate.config.errors import ConfigError
from tidegate.config.schema import Config, Setting, changed_fixed, settings
from tidegate.config.types import HEADER


def read(name: str, text: str) -> Any:
    return settings()[name].read(text)


def test_every_setting_is_declared_in_full() -> None:
    for name, setting in settings().items():
        assert setting.help.endswith("."), name
        assert setting.kind.metavar, name
        assert setting.kind.allowed, name
        if not setting.positional:
            assert setting.flag == "--" + name.replace("_", "-")
            assert setting.environment == f"TIDEGATE_{name.upper()}"
            assert setting.key == name


@pytest.mark.parametrize("name", [name for name, setting in settings().items() if not setting.positional])
def test_every_default_can_be_written_and_read(name: str) -> None:
    setting = settings()[name]
    if setting.default_text:
        return
    text = setting.write(setting.default)
    given_again = tuple(map(setting.read, text.split())) if setting.many else setting.read(text)
    assert given_again == setting.default


def test_the_drain_window_is_shorter_than_the_graceful_timeout() -> None:
    assert Config(application="a:b").drain_window == 10
    assert Config(application="a:b", graceful_timeout=3).drain_window == 1
    assert Config(application="a:b", graceful_timeout=0).drain_window == 0
    assert Config(application="a:b", graceful_timeout=0, drain=0).drain_window == 0
    with pytest.raises(ConfigError, match="give less than --graceful-timeout, which is 30"):
        Config(application="a:b", drain=30)


def test_what_is_passed_to_serve() -> None:
    options = Config(application="a:b", max_size=None, write_limit=(4, 2)).serve_options()
    assert options["max_size"] is None
    assert options["write_limit"] == (4, 2)
    assert "server_header" not in options  # serve() has its own
    assert Config(application="a:b", server_header=None).serve_options()["server_header"] is None
    assert Config(application="a:b").server_header is UNSET


def test_origins() -> None:
    """Origins become what serve() takes: texts, None, and patterns in which `*` is labels of the name."""
    assert "origins" not in Config(application="a:b").serve_options()
    given = ("https://example.com", "https://*.example.net:8443", "none", "null")
    exact, pattern, absent, opaque = Config(application="a:b", origins=given).serve_options()["origins"]
    assert (exact, absent, opaque) == ("https://example.com", None, "null")
    assert pattern.fullmatch("https://www.example.net:8443")
    assert pattern.fullmatch("https://a.b.example.net:8443")
    for other in (
        "https://example.net:8443",
        "https://wwwxexample.net:8443",
        "https://www.example.net:8443.evil.example",
    ):
        assert not pattern.fullmatch(other)
    assert not pattern.fullmatch("https://evil.example/.example.net:8443")


def test_names_of_the_admin_address() -> None:
    assert Config(application="a:b", admin_hosts=("x.example",)).admin_access[:2] == (None, {"127.0.0.1", "x.example"})
    assert Config(application="a:b", admin=None).admin_access[:2] == (None, frozenset())


def test_defaults_are_those_of_serve() -> None:
    import inspect

    from tidegate.asyncio.server import serve

    parameters = inspect.signature(serve).parameters
    for name, value in Config(application="a:b").serve_options().items():
        assert parameters[name].default == value, name


def test_what_a_reload_cannot_change() -> None:
    old = Config(application="a:b")
    assert changed_fixed(old, old) == []
    assert changed_fixed(old, Config(application="c:d", workers=3, log_level="debug", drain=1)) == []
    new = Config(application="a:b", bind=(Tcp("::1", 1),), admin=None)
    assert [setting.name for setting in changed_fixed(old, new)] == ["bind", "admin"]


def test_a_secret_is_not_in_its_error() -> None:
    setting = Setting(HEADER, "", secret=True, name="password")
    with pytest.raises(ConfigError) as caught:
        setting.read("hunter\n2")
    assert "hunter" not in str(caught.value)
    assert "--password" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"keyfile": "key.pem"},
            "--keyfile 'key.pem' is not allowed (a key needs its certificate): give --certfile as well",
        ),
        (
            {"ca_certs": "ca.pem"},
            "--ca-certs 'ca.pem' is not allowed (only TLS has client certificates): give --certfile as well",
        ),
        (
            {"client_certs": "required", "certfile": "x"},
            "--client-certs 'required' is not allowed (there is no authority to verify them): give --ca-certs as well",
        ),
        ({"client_certs": "optional"}, "--client-certs 'optional' is not allowed (only TLS has client certificates):"),
        (
            {"proxy_protocol": True},
            "--proxy-protocol 'true' is not allowed (no peer on TCP may send the header): give"
            " --trusted-proxies as well",
        ),
    ],
)
def test_what_proxies_and_tls_need(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(application="app:handler", **given)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"admin": None}, "(--admin is none): give --admin HOST:PORT as well"),
        ({"control": None}, "(--control is none): give --control PATH as well"),
        ({"bus": "memory://"}, "(--bus is memory://): give --bus local:// as well"),
    ],
)
def test_what_publishing_by_http_needs(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(application="app:handler", publish_token="0123456789abcdef", **given)
    assert str(caught.value) == f"--publish-token '...' is not allowed {words}"


def test_publishing_by_http_on_other_engines_needs_no_control_socket() -> None:
    given = {"bus": "redis://x:secret@y/1", "control": None, "publish_token": "0123456789abcdef"}
    assert Config(application="app:handler", **given).publish_token == "0123456789abcdef"


def test_limits_of_channels() -> None:
    assert Config(application="a:b").channel_limits == ChannelLimits()
    rates = [(read("channel_command_rate", "0.5"), (0.5, 1)), (read("channel_command_rate", "10,50"), (10, 50))]
    for rate, commands in rates:
        assert Config(application="a:b", channel_command_rate=rate).channel_limits.commands == commands
    with pytest.raises(
        ConfigError, match="--bus-message-limit '2097153' is not allowed: give bytes, from 1KiB to 2MiB"
    ):
        read("bus_message_limit", "2097153")
    with pytest.raises(ConfigError) as caught:
        Config(application="a:b", bus_message_limit=2**21, bus_memory=2**25)
    words = "--bus-message-limit '2MiB' is not allowed (the history has no room): give --bus-memory 64MiB as well"
    assert str(caught.value) == words


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "admin.example"])
def test_an_admin_address_beyond_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(application="a:b", admin=Tcp(host, 9465))
    assert str(caught.value) == (
        f"--admin '{Tcp(host, 9465)}' is not allowed (other machines could read the daemon's state):"
        " give --admin-token as well"
    )
    assert Config(application="a:b", admin=Tcp(host, 9465), admin_token="x" * 16).admin_token == "x" * 16


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST"])
def test_on_loopback_the_admin_address_needs_none(host: str) -> None:
    assert Config(application="a:b", admin=Tcp(host, 9465)).admin_token is None


def test_a_token_is_long_and_fits_a_header() -> None:
    assert read("admin_token", "aZ09-._~+/" * 2 + "==") == "aZ09-._~+/" * 2 + "=="
    assert read("admin_token", "none") is None
    for text in ("short", "x" * 15, "x" * 16 + " ", "ä" * 16, "x" * 16 + "\n"):
        with pytest.raises(ConfigError, match=r"^--admin-token '...' is not allowed: give 16 or more letters"):
            read("admin_token", text)


def test_proxies_on_unix_sockets_need_no_network() -> None:
    assert Config(application="app:handler", proxy_protocol=True, bind=(Unix("/run/tidegate"),)).proxy_protocol
