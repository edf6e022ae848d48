"""The error for a setting whose value is not allowed.

    ConfigError    names the setting, the value, what is allowed, and the remedy

What must not live here: how values are written (config/types.py), errors of one source (config/sources.py).
"""

from __future__ import annotations

from reprlib import Repr

__all__ = ["ConfigError"]

_SHORT = Repr()  # of a value of megabytes, both ends
_SHORT.maxstring = 1000


class ConfigError(ValueError):
    """A setting whose value is not allowed: which one, what was given, and what to give instead.

    Attributes:
        option: the name under which it was given, such as ``--workers``.
        value: what was given.
        allowed: what may be given.
        reason: what is wrong with the value, where ``allowed`` alone does not say it.
        remedy: what to do; by default, to give what is allowed.
    """

    def __init__(self, option: str, value: str, allowed: str = "", reason: str = "", *, remedy: str = "") -> None:
        super().__init__(option, value, allowed, reason)
        self.option, self.value, self.allowed, self.reason = option, value, allowed, reason
        self.remedy = remedy or f"give {allowed}"

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.option} {_SHORT.repr(self.value)} is not allowed{reason}: {self.remedy}"

    def given_as(self, option: str) -> ConfigError:
        """Return the same error for the name under which the setting was given."""
        return ConfigError(option, self.value, self.allowed, self.reason, remedy=self.remedy)
