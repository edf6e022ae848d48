"""How settings are written, what is refused and with what words.

What must not live here: which settings there are (test_config.py), the command line (tests/cli/test_serve.py).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.bind import Tcp
from tidegate.config.errors import ConfigError
from tidegate.config.schema import settings
from tidegate.config.types import DURATION, RATE, SECONDS, SWITCH, Kind


def read(name: str, text: str) -> Any:
    return settings()[name].read(text)


@given(st.text())
def test_no_text_breaks_a_setting(text: str) -> None:
    for setting in settings().values():
        try:
            value = setting.read(text)
        except ConfigError:
            continue
        assert setting.kind.read(setting.kind.write(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("0.5", 0.5), (".5", 0.5), ("500ms", 0.5), ("2m", 120), ("1.5 h", 5400), ("3s", 3)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations have units, and seconds without one."""
    assert read("drain", text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1e3", "inf", "nan", "10 d", "ten", "1,5", "999999999"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="give seconds"):
        read("drain", text)


def test_a_timeout_of_no_time_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="it must be above 0"):
        read("open_timeout", "0")
    assert read("open_timeout", "none") is None


@given(st.sampled_from([SECONDS, DURATION]), st.floats(min_value=0, max_value=366 * 86400, exclude_min=True))
def test_durations_are_written_exactly(kind: Kind, seconds: float) -> None:
    assert kind.read(kind.write(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(30.0, "30"), (30, "30"), (0.5, "0.5"), (31622400.0, "31622400"), (1e-05, "0.00001")]
)
def test_how_durations_are_written(seconds: float, text: str) -> None:
    assert SECONDS.write(seconds) == text


def test_switches() -> None:
    """A switch has several words for on and off."""
    assert [SWITCH.read(text) for text in ("true", "YES", "on", "1")] == [True] * 4
    assert [SWITCH.read(text) for text in ("false", "no", "Off", "0")] == [False] * 4
    assert (SWITCH.write(True), SWITCH.write(False)) == ("true", "false")
    with pytest.raises(ValueError):  # noqa: PT011 - it has nothing to add to what is allowed
        SWITCH.read("2")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64KiB", 65536), ("64 KiB", 65536), ("1kB", 1000), ("1.5MiB", 1572864), ("2GB", 2 * 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes have decimal and binary units, and bytes without one."""
    assert read("max_size", text) == size


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "64K", "1 TB", "KiB", "99999999999999GiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="give bytes"):
        read("max_size", text)


def test_marks() -> None:
    """A high-water mark stands alone or with a low-water mark, which is not above it."""
    assert read("max_queue", "16") == 16
    assert read("max_queue", "16,4") == (16, 4)
    assert read("max_queue", "NONE") is None
    assert read("write_limit", "64KiB, 16KiB") == (65536, 16384)
    with pytest.raises(ConfigError, match="above the high-water mark"):
        read("max_queue", "4,16")
    with pytest.raises(ConfigError, match="give bytes"):
        read("write_limit", "none")


def test_other_kinds() -> None:
    assert read("workers", "auto") == "auto"
    assert read("workers", "4") == 4
    assert read("compression", "none") is None
    assert read("admin", "none") is None
    assert read("admin", "[::1]:9465") == Tcp("::1", 9465)
    assert read("log_level", "DEBUG") == "debug"
    assert read("server_header", "none") is None
    for name, text in (("workers", "0"), ("workers", "257"), ("compression", "gzip"), ("log_level", "loud")):
        with pytest.raises(ConfigError):
            read(name, text)
    with pytest.raises(ConfigError, match="printable ASCII"):
        read("server_header", "a\r\nb")


def test_who_and_where() -> None:
    assert (read("user", "www-data"), read("group", "33"), read("user", "none")) == ("www-data", "33", None)
    assert (read("pidfile", "/run/tidegate.pid"), read("working_dir", "none")) == ("/run/tidegate.pid", None)
    for name, text in (("user", ""), ("user", "a:b"), ("user", "-1"), ("group", "a b"), ("pidfile", "")):
        with pytest.raises(ConfigError):
            read(name, text)


def test_permissions_are_octal() -> None:
    assert [read("umask", text) for text in ("027", "0027", "0o27", "77", "0", "none")] == [23, 23, 23, 63, 0, None]
    assert settings()["umask"].write(23) == "027"
    for text in ("8", "1000", "", "-1", "0x1", "rwx"):
        with pytest.raises(ConfigError, match="octal"):
            read("umask", text)


def test_processors() -> None:
    """Processors are numbers and ranges, each once, in their order."""
    assert read("cpu_affinity", "0,2,4-7") == (0, 2, 4, 5, 6, 7)
    assert read("cpu_affinity", "3, 1-3") == (3, 1, 2)
    assert (read("cpu_affinity", "auto"), read("cpu_affinity", "none")) == ("auto", None)
    for text in ("", "2-1", "a", "1-", "0,,1", "0-99999"):
        with pytest.raises(ConfigError, match="processors, such as"):
            read("cpu_affinity", text)


@pytest.mark.parametrize("text", ["app:handler", "package.module:app", "app:factory.handler"])
def test_applications(text: str) -> None:
    """An application is MODULE:ATTRIBUTE, both with dots allowed."""
    assert read("application", text) == text


@pytest.mark.parametrize(
    "text", ["app", "app:", ":handler", "app.py:handler", "app.py", "./app:handler", "a:b:c", "a-b:c"]
)
def test_applications_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="MODULE:ATTRIBUTE"):
        read("application", text)


def test_a_script_is_not_a_module() -> None:
    with pytest.raises(ConfigError, match=r"a module has no \.py at its end: app:handler"):
        read("application", "app.py:handler")


@pytest.mark.parametrize(("text", "rate"), [("10", 10.0), ("0.5", 0.5), ("10,50", (10.0, 50)), ("1.5, 3", (1.5, 3))])
def test_rates(text: str, rate: object) -> None:
    """A rate stands alone or with a burst, and is written as it is read."""
    assert read("handshake_rate", text) == rate
    assert RATE.read(RATE.write(rate)) == rate


@pytest.mark.parametrize("text", ["0", "-1", "10,", "10,0", "10,0.5", "x", "10 s", ""])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="give handshakes a second, such as 10, "):
        read("handshake_rate", text)


def test_networks() -> None:
    """A network has no host bits, and the error names the network that was meant."""
    assert read("trusted_proxies", "10.0.0.0/8") == "10.0.0.0/8"
    with pytest.raises(ConfigError, match=r"\(the network of that address is 10\.0\.0\.0/8\): give a network such as"):
        read("trusted_proxies", "10.0.0.1/8")


def test_a_password_is_not_shown() -> None:
    assert read("keyfile_password", "secret words") == "secret words"
    assert settings()["keyfile_password"].secret


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTPS://Example.COM:8443", "https://example.com:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://*.example.com", "https://*.example.com"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
        ("None", "none"),
    ],
)
def test_origins(text: str, read_as: str) -> None:
    """An origin is read as browsers serialize it."""
    assert read("origins", text) == read_as


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://example.com/", r"\(an origin ends after the host or the port, without a slash\)"),
        ("https://example.com/chat", r"\(an origin ends after"),
        ("https://example.com:443", r"\(browsers leave out the port 443 of https\)"),
        ("http://example.com:80", r"\(browsers leave out the port 80 of http\)"),
        ("example.com", ""),
        ("*", ""),
        ("https://*", ""),
        ("https://example.*", ""),
        ("https://bücher.example", ""),
        ("", ""),
    ],
)
def test_origins_that_no_browser_sends(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--origins .* is not allowed.*{reason}.*: give an origin such as https"):
        read("origins", text)


def test_host_names() -> None:
    assert read("admin_hosts", "Status.Example.com") == "status.example.com"
    assert read("admin_hosts", "tidegate") == "tidegate"
    for text in ("https://a.example", "a.example:80", "a b", "*.example", "", "a" * 254, "-a"):
        with pytest.raises(ConfigError, match=r"^--admin-hosts .* is not allowed.*: give a host name"):
            read("admin_hosts", text)
