"""How a setting is declared: `Setting`, from which flag, environment name and file key follow.

What must not live here: which settings there are (schema.py), how values are written (types.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from .types import Kind

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of a setting, except for its type and default, which the field of `Config` has.

    Attributes:
        kind: how its value is written, and what is allowed.
        help: its text in ``--help``: a noun phrase for what the value is, or an imperative for what it does.
        many: whether it may be given several times.
        positional: whether it is an argument of the command instead of an option.
        served: whether it is a parameter of ``serve()`` of the same name.
        fixed: whether a reload that would change it is refused.
        secret: whether its value must not be printed.
        default_text: the default in words, where the value does not say it.
        name: the field's name; flag, environment name and file key follow from it.
        default: the field's default.
    """

    kind: Kind
    help: str
    many: bool = False
    positional: bool = False
    served: bool = False
    fixed: bool = False
    secret: bool = False
    default_text: str = ""
    name: str = ""
    default: Any = msgspec.NODEFAULT

    @property
    def flag(self) -> str:
        """``--ping-interval``; an argument's name in capitals."""
        return self.name.upper() if self.positional else "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """``TIDEGATE_PING_INTERVAL``."""
        return f"TIDEGATE_{self.name.upper()}"

    @property
    def key(self) -> str:
        """The key in a configuration file: ``ping_interval``."""
        return self.name

    def read(self, text: str, *, given_as: str = "") -> Any:
        """Return the value that a text stands for; ConfigError names the option, the text and what is allowed."""
        return self.kind.parse(text, given_as or self.flag, secret=self.secret)

    def show(self, value: Any) -> str | None:
        """Return a value as it may be shown; None if it may not."""
        if not self.secret or value == self.default:
            return self.write(value)
        return self.kind.mask(value) if self.kind.mask is not None else None

    def write(self, value: Any) -> str:
        """Return the text for a value."""
        return " ".join(map(self.kind.write, value)) if self.many else self.kind.write(value)
