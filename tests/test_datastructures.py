"""Tests of tidegate.datastructures."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.datastructures import Headers, HeadersLike, MultipleValuesError
from tidegate.exceptions import InvalidHeader, InvalidHeaderValue

NAMES = st.sampled_from(["A", "a", "B", "b", "Long-Name", "long-name"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("\té\x80ÿ"), max_size=5)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


class Mapped:
    """Something with keys and items that is no mapping."""

    def keys(self) -> Iterator[str]:
        return iter(["A", "B"])

    def __getitem__(self, key: str) -> str:
        return key * 2


def headers() -> Headers:
    return Headers([("Connection", "Upgrade"), ("Server", "one"), ("Set-Cookie", "a"), ("SET-COOKIE", "b")])


def test_multiple_values_error() -> None:
    assert str(MultipleValuesError("Name")) == "'Name'"
    assert repr(MultipleValuesError("Name")) == "MultipleValuesError('Name')"
    assert str(MultipleValuesError()) == ""
    assert str(MultipleValuesError("a", "b")) == "('a', 'b')"
    assert issubclass(MultipleValuesError, LookupError)
    assert not issubclass(MultipleValuesError, KeyError)


def test_text() -> None:
    """Headers show as they are sent, and have a repr."""
    assert str(headers()) == "Connection: Upgrade\r\nServer: one\r\nSet-Cookie: a\r\nSET-COOKIE: b\r\n\r\n"
    assert repr(Headers(a="1")) == "Headers([('a', '1')])"
    assert repr(Headers()) == "Headers([])"
    assert Headers().serialize() == b"\r\n"
    assert Headers(a="é\xff").serialize() == b"a: \xe9\xff\r\n\r\n"


@pytest.mark.parametrize(
    "likes",
    [
        ({"A": "AA", "B": "BB"},),
        ([("A", "AA"), ("B", "BB")],),
        (iter([("A", "AA"), ("B", "BB")]),),
        (Headers(A="AA", B="BB"),),
        (Mapped(),),
    ],
)
def test_made_of(likes: tuple[HeadersLike, ...]) -> None:
    assert list(Headers(*likes).raw_items()) == [("A", "AA"), ("B", "BB")]


def test_made_of_both() -> None:
    assert list(Headers([("A", "1"), ("A", "2")], A="3").raw_items()) == [("A", "1"), ("A", "2"), ("A", "3")]


def test_made_of_too_much() -> None:
    with pytest.raises(TypeError):
        Headers({"A": "1"}, {"B": "2"})


def test_lookup_ignores_case() -> None:
    assert headers()["server"] == headers()["SERVER"] == headers().get("Server") == "one"
    assert "CONNECTION" in headers()
    assert "Nothing" not in headers()
    assert 1 not in headers()  # type: ignore[comparison-overlap]


def test_lookup_of_nothing() -> None:
    with pytest.raises(KeyError, match=r"^'nothing'$"):
        headers()["Nothing"]
    assert headers().get("Nothing") is None
    assert headers().get("Nothing", "default") == "default"
    assert headers().get_all("Nothing") == []


def test_lookup_of_several() -> None:
    with pytest.raises(MultipleValuesError, match=r"^'Set-Cookie'$"):
        headers()["Set-Cookie"]
    with pytest.raises(MultipleValuesError):
        headers().get("Set-Cookie")
    with pytest.raises(MultipleValuesError):
        list(headers().items())
    with pytest.raises(MultipleValuesError):
        list(headers().values())
    assert headers().get_all("set-cookie") == ["a", "b"]


def test_get_all_returns_a_copy() -> None:
    h = headers()
    h.get_all("Server").append("two")
    assert h["Server"] == "one"


def test_iteration() -> None:
    """Iteration gives each name once, in lower case; `raw_items()` gives all as they came."""
    assert list(headers()) == list(headers().keys()) == ["connection", "server", "set-cookie"]
    assert len(headers()) == 3
    assert list(headers().raw_items())[3] == ("SET-COOKIE", "b")
    assert not Headers()


def test_assignment_appends() -> None:
    h = headers()
    h["Server"] = "two"
    assert h.get_all("Server") == ["one", "two"]
    del h["SERVER"]
    assert "Server" not in h
    assert list(h) == ["connection", "set-cookie"]
    h["Server"] = "three"
    assert h["Server"] == "three"
    assert list(h.raw_items())[-1] == ("Server", "three")
    with pytest.raises(KeyError):
        del h["Nothing"]


def test_update_keeps_several() -> None:
    h = Headers(Server="zero")
    h.update(headers())
    assert h.get_all("Server") == ["zero", "one"]
    assert h.get_all("Set-Cookie") == ["a", "b"]
    h.update({"X": "1"}, Y="2")
    h.update([("X", "3"), ("X", "4")])
    assert h.get_all("X") == ["1", "3", "4"]
    assert h["Y"] == "2"


def test_mutable_mapping() -> None:
    h = headers()
    assert h.pop("Server") == "one"
    assert h.pop("Server", "default") == "default"
    assert h.setdefault("Server", "two") == "two"
    assert h.setdefault("Server", "three") == "two"
    h.clear()
    assert list(h.raw_items()) == []
    assert list(h) == []
    h["A"] = "1"
    assert h.popitem() == ("a", "1")


@pytest.mark.parametrize(
    "value", ["a\r\nB: c", "a\nb", "a\rb", "\n", "\r", "\x00", "\x01", "\x1f", "\x7f", "\u20ac", "é\r\n", "\ud800"]
)
def test_values_that_no_header_can_hold(value: str) -> None:
    h = Headers(A="1")
    for put in (
        lambda: Headers(A=value),
        lambda: Headers([("A", value)]),
        lambda: Headers({"A": value}),
        lambda: h.__setitem__("A", value),
        lambda: h.update(A=value),
        lambda: h.setdefault("B", value),
    ):
        with pytest.raises(InvalidHeaderValue) as raised:
            put()
        assert raised.value.name in "AB"
        assert raised.value.value == value
    assert list(h.raw_items()) == [("A", "1")]


@pytest.mark.parametrize("value", ["", " a ", "\t", "é", "\x80", "\xad", "a\tb", "!~"])
def test_values_that_a_header_can_hold(value: str) -> None:
    assert Headers(A=value)["A"] == value
    assert Headers(A=value).serialize() == b"A: " + value.encode("latin-1") + b"\r\n\r\n"


def test_numbers_are_taken() -> None:
    h = Headers()
    h["Content-Length"] = 5  # type: ignore[assignment]
    assert h.serialize() == b"Content-Length: 5\r\n\r\n"
    with pytest.raises(InvalidHeaderValue):
        h["A"] = ["\n", "a\nb", ValueError("a\nb")][2]  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["A\r\nB", "A\n", "\x00"])
def test_names_that_no_header_can_have(name: str) -> None:
    h = Headers()
    with pytest.raises(InvalidHeader):
        h[name] = "a"
    with pytest.raises(InvalidHeader):
        h.set_insecure(name, "a")
    assert h.serialize() == b"\r\n"


def test_set_insecure() -> None:
    h = headers()
    assert "A" not in h
    h.set_insecure("A", "b\r\nc")
    assert h["a"] == "b\r\nc"


def test_equality() -> None:
    """Headers are equal whatever the case and order of names; the values of one name must be in the same order."""
    assert Headers(a="1", b="2") == Headers(B="2", A="1")
    assert Headers(a="1") != Headers(a="2")
    assert Headers([("a", "1"), ("a", "2")]) != Headers([("a", "2"), ("a", "1")])
    assert Headers([("a", "1"), ("a", "2")]) == Headers([("A", "1"), ("a", "2")])
    assert Headers(a="1") != {"a": "1"}
    assert Headers(a="1") != 1


def test_not_hashable_and_no_other_attributes() -> None:
    with pytest.raises(TypeError):
        hash(headers())
    with pytest.raises(AttributeError):
        headers().other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [Headers.copy, copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
@pytest.mark.parametrize("looked_up", [False, True])
def test_copies(make: object, looked_up: bool) -> None:
    """A copy has the same items, and changes by itself."""
    one = headers()
    assert not looked_up or "Server" in one
    two = make(one)  # type: ignore[operator]
    assert type(two) is Headers
    assert list(two.raw_items()) == list(one.raw_items())
    assert two == one
    two["Other"] = "x"
    assert "Other" in two
    assert "Other" not in one
    assert len(list(one.raw_items())) == 4


@given(
    PAIRS, st.lists(st.tuples(st.sampled_from(["set", "delete", "look", "copy", "clear"]), NAMES, VALUES), max_size=20)
)
def test_as_a_list_would_do(pairs: list[tuple[str, str]], steps: list[tuple[str, str, str]]) -> None:
    h = Headers(pairs)
    model = list(pairs)
    for step, name, value in steps:
        if step == "set":
            h[name] = value
            model.append((name, value))
        elif step == "delete" and any(key.lower() == name.lower() for key, _ in model):
            del h[name]
            model = [pair for pair in model if pair[0].lower() != name.lower()]
        elif step == "look":
            assert h.get_all(name) == [v for key, v in model if key.lower() == name.lower()]
        elif step == "copy":
            h = h.copy()
        elif step == "clear" and value == "":
            h.clear()
            model = []
        assert list(h.raw_items()) == model
    assert set(h) == {key.lower() for key, _ in model}
    assert len(h) == len(set(h))
    assert h == Headers(model)
    assert h.serialize() == "".join([f"{key}: {value}\r\n" for key, value in model] + ["\r\n"]).encode("latin-1")
