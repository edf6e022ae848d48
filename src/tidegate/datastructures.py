"""Headers: an ordered, case-insensitive mapping in which a name may have several values.

The container and what may be stored in it. The grammar of particular headers must not be here, it is in ``headers``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol

from ._exceptions import InvalidHeader, InvalidHeaderValue

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

# RFC 9110, 5.5: visible characters, space, tab and obs-text, which is read and written as ISO-8859-1.
_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class MultipleValuesError(LookupError):
    """A single value was asked for a header that has several; its argument is the name of the header."""

    def __str__(self) -> str:
        # As KeyError does, which is the other outcome of a look-up.
        if len(self.args) == 1:
            return repr(self.args[0])
        return super().__str__()


class Headers(MutableMapping[str, str]):
    """HTTP headers, looked up without regard to case, in the order and the case in which they were added.

    A header may appear several times (RFC 9110, 5.3), which makes three differences to a :class:`dict`:

    * ``headers[name] = value`` adds a value, and keeps those that are there; delete first to replace.
    * ``headers[name]`` raises :exc:`MultipleValuesError` if there are several; :meth:`get_all` returns them.
    * iterating, ``len()`` and ``keys()`` see each name once, in lower case; :meth:`raw_items` yields every pair.

    Values are text that ISO-8859-1 can write, without control characters: a value with a line break would become
    another header on the wire, and raises.

    Args:
        args: at most one: headers, a mapping, or pairs of name and value.
        kwargs: more headers, by name.

    Raises:
        InvalidHeaderValue: if a value contains a character that is not allowed.
        InvalidHeader: if a name contains a control character.
    """

    __slots__ = ("_dict", "_list")

    # Values by lower-case name: made by the first look-up, because a response is mostly written and never read.
    _dict: dict[str, list[str]] | None
    # Pairs in order.
    _list: list[tuple[str, str]]

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._dict = None
        self._list = []
        if args or kwargs:
            self.update(*args, **kwargs)

    @classmethod
    def _of(cls, pairs: list[tuple[str, str]]) -> Headers:
        """Wrap pairs that are known to be valid; the list is kept, not copied."""
        self = cls.__new__(cls)
        self._dict = None
        self._list = pairs
        return self

    def _index(self) -> dict[str, list[str]]:
        """Return the values by lower-case name."""
        index = self._dict
        if index is None:
            index = {}
            for key, value in self._list:
                key = key.lower()
                if key in index:
                    index[key].append(value)
                else:
                    index[key] = [value]
            self._dict = index
        return index

    def __str__(self) -> str:
        return "".join([f"{key}: {value}\r\n" for key, value in self._list]) + "\r\n"

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._list!r})"

    def copy(self) -> Headers:
        """Return an independent copy."""
        return self.__class__._of(self._list.copy())

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__._of, (self._list,)

    def serialize(self) -> bytes:
        """Return the lines of a message's head, the empty line included."""
        # Only a name, or set_insecure, can hold what ISO-8859-1 cannot write.
        return str(self).encode("latin-1")

    # Collection

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    # Mapping

    def __getitem__(self, key: str) -> str:
        values = self._index()[key.lower()]
        if len(values) == 1:
            return values[0]
        raise MultipleValuesError(key)

    def __setitem__(self, key: str, value: str) -> None:
        # A str of printable ASCII, which almost every value is, needs no regular expression.
        if not (isinstance(value, str) and value.isascii() and value.isprintable()) and not _field_value(str(value)):
            raise InvalidHeaderValue(key, value)
        self.set_insecure(key, value)

    def __delitem__(self, key: str) -> None:
        key = key.lower()
        del self._index()[key]
        self._list = [pair for pair in self._list if pair[0].lower() != key]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._index() == other._index()

    def clear(self) -> None:
        """Remove all headers."""
        self._dict = None
        self._list = []

    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        """Add headers; several values of one name are kept when they come from :class:`Headers` or from pairs.

        Args:
            args: at most one: headers, a mapping, or pairs of name and value.
            kwargs: more headers, by name.

        Raises:
            InvalidHeader, InvalidHeaderValue: for what no header can hold; what came before it is added.
        """
        args = tuple([arg.raw_items() if isinstance(arg, Headers) else arg for arg in args])
        super().update(*args, **kwargs)

    # Several values

    def get_all(self, key: str) -> list[str]:
        """Return all values of the header ``key``, in order; an empty list if it is absent."""
        return self._index().get(key.lower(), []).copy()

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all pairs of name and value, in order, names as they were given."""
        return iter(self._list)

    def set_insecure(self, key: str, value: str) -> None:
        """Add ``value`` to the header ``key`` without checking it; never with text that comes from outside.

        Raises:
            InvalidHeader: if the name contains a control character all the same.
        """
        if not key.isprintable():
            raise InvalidHeader(key, value)
        if self._dict is not None:
            self._dict.setdefault(key.lower(), []).append(value)
        self._list.append((key, value))


class SupportsKeysAndGetItem(Protocol):
    """What mappings have in common."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str) -> str: ...


HeadersLike = Headers | Mapping[str, str] | Iterable[tuple[str, str]] | SupportsKeysAndGetItem
"""What :class:`Headers` can be made of; only :class:`Headers` and pairs can hold several values of a name."""
