"""X-Forwarded-For and Forwarded: which hop is the client.

What must not live here: whether a peer is asked at all (asyncio/test_admission.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.forwarded import FORWARDED, X_FORWARDED_FOR, client_of
from tidegate.networks import Networks

TRUSTED = Networks(["10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], None),
        (["192.0.2.1"], ("192.0.2.1", 0)),
        (["192.0.2.1:4711"], ("192.0.2.1", 4711)),
        (["2001:db8::1"], ("2001:db8::1", 0)),
        (["203.0.113.9, 192.0.2.1"], ("192.0.2.1", 0)),  # what stands left of the first stranger, it made up
        (["203.0.113.9", "192.0.2.1"], ("192.0.2.1", 0)),
        (["192.0.2.1, 10.0.0.1"], ("192.0.2.1", 0)),
        (["192.0.2.1,10.0.0.1", "fd00::1"], ("192.0.2.1", 0)),
        (["10.0.0.2, 10.0.0.1"], ("10.0.0.2", 0)),  # a client in the own network
        (["192.0.2.1, unknown, 10.0.0.1"], ("10.0.0.1", 0)),
        (["unknown"], None),
        ([""], None),
        (["192.0.2.1,"], None),
    ],
)
def test_x_forwarded_for(values: list[str], client: tuple[str, int] | None) -> None:
    assert client_of(X_FORWARDED_FOR, values, TRUSTED) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=192.0.2.1"], ("192.0.2.1", 0)),
        (["For=192.0.2.1;proto=https;by=203.0.113.43"], ("192.0.2.1", 0)),
        (['for="[2001:db8::1]:4711"'], ("2001:db8::1", 4711)),
        (['proto=https;for="192.0.2.1:80"'], ("192.0.2.1", 80)),
        (["for=203.0.113.9, for=192.0.2.1"], ("192.0.2.1", 0)),
        (["for=203.0.113.9,for=192.0.2.1", "for=10.0.0.1"], ("192.0.2.1", 0)),
        (['for="_a,b";host="x, for=1.2.3.4", for=192.0.2.1, for=10.0.0.1'], ("192.0.2.1", 0)),
        (['for="192.0.\\2.1"'], ("192.0.2.1", 0)),
        # What is quoted is no parameter, whatever it looks like.
        (['by="x;for=203.0.113.9";for=192.0.2.1'], ("192.0.2.1", 0)),
        (['host="x;for=203.0.113.9"'], None),
        (['host="x\\";for=203.0.113.9";for=192.0.2.1'], ("192.0.2.1", 0)),
        (["for=203.0.113.9;for=192.0.2.1"], None),  # a parameter that may be there once
        (["proto=https"], None),
        (["for=_hidden"], None),
        (["for=unknown, for=10.0.0.1"], ("10.0.0.1", 0)),
        (["for=192.0.2.1 nonsense, for=10.0.0.1"], None),  # what the nearest proxy appended to is no grammar
        (['for=203.0.113.9, for="192.0.2.1'], None),
    ],
)
def test_forwarded(values: list[str], client: tuple[str, int] | None) -> None:
    """The Forwarded header gives the address of the client that the trusted proxies saw."""
    assert client_of(FORWARDED, values, TRUSTED) == client


@given(
    st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])), st.sampled_from([X_FORWARDED_FOR, FORWARDED])
)
def test_nobody_chooses_an_address(made_up: str, header: str) -> None:
    """Whatever a client sends, what a trusted proxy appends in a header line of its own is what counts."""
    told = "for=192.0.2.1" if header == FORWARDED else "192.0.2.1"
    assert client_of(header, [made_up, told], TRUSTED) == ("192.0.2.1", 0)


@given(st.text(st.sampled_from('for="192.0,;=\\ \t')))
def test_it_takes_no_time(made_up: str) -> None:
    client_of(FORWARDED, [made_up * 50], TRUSTED)
