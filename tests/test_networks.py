"""Networks, what is one client, and addresses as headers write them.

What must not live here: headers (test_forwarded.py).
"""

from __future__ import annotations

import re

import pytest

from tidegate.networks import Networks, host_of, key_of, parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("UNIX", "unix"),
    ],
)
def test_networks_are_written_in_one_way(text: str, network: str) -> None:
    assert parse_network(text) == network
    assert parse_network(network) == network


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1/8", "the network of that address is 10.0.0.0/8"),
        ("[::1]", "an IPv6 address has no brackets here"),
        ("localhost", ""),
        ("10.0.0.0/33", ""),
        ("", ""),
        ("*", ""),
    ],
)
def test_what_is_no_network(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse_network(text)


def test_who_is_in_a_network() -> None:
    networks = Networks(["10.0.0.0/8", "2001:db8::/32"])
    assert networks
    assert "10.1.2.3" in networks
    assert "::ffff:10.1.2.3" in networks  # as a socket of both kinds shows it
    assert "2001:db8:1::1" in networks
    assert "11.0.0.1" not in networks
    assert "2001:db9::1" not in networks
    assert "nonsense" not in networks
    assert None not in networks
    assert None in Networks(["unix"])
    assert "127.0.0.1" not in Networks(["unix"])
    assert not Networks([])


def test_a_zone_does_not_matter() -> None:
    assert "fe80::1%eth0" in Networks(["fe80::/10"])
    assert key_of("fe80::1%eth0") == key_of("fe80::2")


def test_one_client_is_an_address_or_a_64() -> None:
    assert key_of("192.0.2.1") != key_of("192.0.2.2")
    assert key_of("192.0.2.1") == key_of("::ffff:192.0.2.1")
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff:ffff:ffff:ffff")
    assert key_of("2001:db8::1") != key_of("2001:db8:0:1::1")
    with pytest.raises(ValueError, match="x"):
        key_of("x")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("2001:DB8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("::ffff:192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:http", None),
        ("192.0.2", None),
        ("[192.0.2.1", None),
        ("fe80::1%eth0", None),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
    ],
)
def test_addresses_of_headers(text: str, place: tuple[str, int] | None) -> None:
    assert host_of(text) == place
