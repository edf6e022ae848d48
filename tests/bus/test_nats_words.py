"""Tests of tidegate.bus.nats_words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.patience import PATIENCE
from tidegate.bus.base import Publication
from tidegate.bus.nats_words import Words, encode, find, pack_head, status_of, unpack_head

WORDS = Words("main", "w1")


@given(st.text(min_size=1, max_size=85))
def test_a_channel_is_one_token(channel: str) -> None:
    token = encode(channel)
    assert token.isascii()
    assert not set(token) & set(" .*>~")


def test_names_of_streams_are_read_by_operators_and_differ() -> None:
    assert WORDS.stream("chat:") == "TG_main_chat_3a"
    assert WORDS.stream("") == "TG_main__"
    assert WORDS.stored("ü-1 ") == "tg.main.h._c3_bc-1_20."
    assert WORDS.live("chat:", "Kd83") == "tg.main.l.chat_3a.Kd83."
    prefixes = ["", "_", "-", "a", "a:", "a_3a", "h", "_h", "." * 22, "." * 255, "." * 254, "☂" * 85]
    names = [WORDS.stream(prefix) for prefix in prefixes]
    assert len(set(names)) == len(names)
    assert all(len(name) < 128 and not set(name) & set(" .*>") for name in names)


@given(
    st.builds(
        Publication,
        st.just("c"),
        st.binary(),
        st.booleans(),
        st.text(st.characters(max_codepoint=126), max_size=32),
        st.booleans(),
        st.booleans(),
    ),
    st.sampled_from([None, "w1:7"]),
)
def test_a_head_is_what_it_was(publication: Publication, identity: str | None) -> None:
    headers = pack_head(publication, identity)
    assert headers.startswith(b"NATS/1.0\r\n")
    assert headers.endswith(b"\r\n\r\n")
    assert len(headers.split(b"\r\n")) == (5 if identity else 4)  # no line more, whatever the sender
    head = unpack_head(headers)
    assert head[:3] == (publication.text, publication.json, publication.exclude)
    assert head.sender == publication.sender
    assert head.time == pytest.approx(time.time(), abs=PATIENCE)
    assert find(headers, b"\r\nNats-Msg-Id: ") == (identity.encode() if identity else None)
    assert status_of(headers) == 0


@pytest.mark.parametrize(
    "headers",
    [None, b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nTidegate: t\r\n\r\n", b"NATS/1.0\r\nTidegate: t;1;\xff\r\n\r\n"],
)
def test_a_message_of_another_program(headers: bytes | None) -> None:
    head = unpack_head(headers)
    assert (head.text, head.json, head.exclude, head.sender) == (False, False, False, "")
    assert head.time == pytest.approx(time.time(), abs=PATIENCE)


def test_an_answer_that_is_no_message_has_a_status() -> None:
    assert status_of(b"NATS/1.0 404 Message Not Found\r\n\r\n") == 404
    assert status_of(b"NATS/1.0 503\r\n\r\n") == 503
    assert status_of(b"") == 0
