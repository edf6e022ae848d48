"""The numbers of State and Side are those of RFC 6455's order, and of the native channel."""

from __future__ import annotations

from tidegate.protocol import CLOSED, CLOSING, CONNECTING, OPEN, STATES, Side, State


def test_states_are_in_the_order_of_a_connections_life() -> None:
    assert [CONNECTING, OPEN, CLOSING, CLOSED] == sorted(State) == list(STATES) == [0, 1, 2, 3]
    assert [state.name for state in STATES] == ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]


def test_a_side_is_the_answer_to_who_masks() -> None:
    assert (Side.SERVER, Side.CLIENT) == (0, 1)
    assert not Side.SERVER
    assert Side.CLIENT
