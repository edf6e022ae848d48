"""Where settings come from: a TOML file, the environment, the command line, each with precedence over those before.

    Loader     knows the sources: `load` reads the file again each time, `resolve` says where each value came from
    Resolved   a configuration, and the origin of each of its values
    as_toml    the same as a file that can be read again

In a file a key is a setting's name, `ping_interval = 10`; in the environment TIDEGATE_ goes before it in capitals,
TIDEGATE_PING_INTERVAL=10. A value is the text that the command line takes; a file may have numbers, true and false
without quotes, and an array where a setting may be given several times. In the environment spaces are between those.
What a source gives replaces what those before it gave, as a whole. What no setting has to do with is a mistake, in each
source, lest a word written wrongly do nothing for years.

What must not live here: which settings there are (config/schema.py), the daemon.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from ..process.place import here
from ..text import escape, nearest
from ..version import version
from .errors import ConfigError
from .schema import Config, Setting, settings
from .types import Kind, write_number

__all__ = ["FileError", "Loader", "MissingSetting", "Origin", "Resolved", "UnknownSetting", "as_toml"]

PREFIX = "TIDEGATE_"
CONFIG = "TIDEGATE_CONFIG"

# Variables with the prefix that are no settings, and whose they are.
OTHERS = {
    CONFIG: "the path of the configuration file",
    "TIDEGATE_BACKOFF_FACTOR": "client",
    "TIDEGATE_BACKOFF_INITIAL_DELAY": "client",
    "TIDEGATE_BACKOFF_MAX_DELAY": "client",
    "TIDEGATE_BACKOFF_MIN_DELAY": "client",
    "TIDEGATE_MAX_BODY_SIZE": "http11",
    "TIDEGATE_MAX_HEAD_SIZE": "http11",
    "TIDEGATE_MAX_LINE_LENGTH": "http11",
    "TIDEGATE_MAX_LOG_SIZE": "frames",
    "TIDEGATE_MAX_NUM_HEADERS": "http11",
    "TIDEGATE_MAX_REDIRECTS": "client",
    "TIDEGATE_UPGRADE": "ipc.handover_state",
    "TIDEGATE_SERVER": "http11",
    "TIDEGATE_USER_AGENT": "http11",
    "TIDEGATE_AUTOBAHN": "tests",
    "TIDEGATE_CHROMIUM": "tests",
    "TIDEGATE_FUZZ": "tests",
    "TIDEGATE_PEER_LOOP": "tests",
    "TIDEGATE_PYTHON2": "tests",
    "TIDEGATE_REQUIRE_ALL": "tests",
    "TIDEGATE_TEST_SLOWNESS": "tests",
}

# Kubernetes gives each container variables for each service of its namespace: one called tidegate, or tidegate-admin,
# makes these, and must keep no daemon from starting.
_OF_A_SERVICE = re.compile(r"TIDEGATE(_\w+)?(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_URL_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class FileError(ConfigError):
    """A configuration file that cannot be read, or is no TOML.

    Attributes:
        place: its path, and the line if that is known.
        problem: what is wrong.
    """

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, "", "a TOML file", problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class UnknownSetting(ConfigError):
    """Something that no setting is called.

    Attributes:
        place: path and line, if it is in a file.
        name: what it is called there.
        meant: the nearest right name, empty if none is near.
    """

    def __init__(self, place: str, name: str, meant: str) -> None:
        super().__init__(name, "", meant or "a setting of `tidegate serve --help`")
        self.place, self.name, self.meant = place, name, meant

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        what = f"there is no setting {self.name}" if self.place else f"{self.name} in the environment is no setting"
        hint = f"did you mean {self.meant}?" if self.meant else "`tidegate serve --help` has them all"
        return f"{where}{what}: {hint}"


class MissingSetting(ConfigError):
    """A setting that has no default, and that no source gives."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting.flag, "", setting.kind.allowed)

    def __str__(self) -> str:
        return f"{self.option} is missing: give {self.allowed}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        source: which of the sources.
        name: what the setting is called there.
        place: path and line, in a file.
    """

    source: Literal["default", "file", "environment", "command line"]
    name: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.source} {self.place or self.name}".rstrip()

    @property
    def option(self) -> str:
        """What an error calls the setting."""
        return f"{self.place}: {self.name}" if self.place else self.name


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration.

    Attributes:
        config: the settings.
        origins: where each came from, by name.
    """

    config: Config
    origins: Mapping[str, Origin]


_Found: TypeAlias = Iterator[tuple[Setting, Any, Origin]]


class Loader:
    """The sources of a process's settings, as they were when it was started; only the file is read again.

    Parameters:
        given: what the command line gives: values by name.
        environment: the environment's variables.
        path: the configuration file; None for the one that TIDEGATE_CONFIG names, if any.
    """

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str], path: str | None = None) -> None:
        self._given = dict(given)
        self._environment = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
        self.path = path or self._environment.get(CONFIG) or None
        # The daemon may go to another directory before it reads the file again, and this one be another by then.
        self._absolute = os.path.join(here(), self.path) if self.path is not None else ""

    @property
    def file(self) -> str | None:
        """The configuration file, from the root."""
        return self._absolute or None

    def load(self) -> Config:
        """The configuration as the sources give it now.

        Raises:
            ConfigError: the file cannot be read, a source has something that is no setting, or a value cannot be.
        """
        return self.resolve().config

    def resolve(self) -> Resolved:
        """The configuration, and where each of its values came from; the errors of `load()`."""
        values: dict[str, Any] = {}
        origins = {name: Origin("default") for name in settings()}
        for found in (self._from_file(), self._from_environment(), self._from_command_line()):
            for setting, value, origin in found:
                values[setting.name], origins[setting.name] = value, origin
        for name, setting in settings().items():
            if setting.default is msgspec.NODEFAULT and name not in values:
                raise MissingSetting(setting)
        try:
            return Resolved(Config(**values), origins)
        except ConfigError as error:
            raise _as_called(error, origins) from None

    def _from_file(self) -> _Found:
        if self.path is None:
            return
        shown = escape(self.path)
        text, table = _read(self._absolute, shown)
        for key, value in table.items():
            line = _line_of(key, text)
            place = shown if line is None else f"{shown}:{line}"
            setting = settings().get(key)
            if setting is None and isinstance(value, dict | list) and _is_table(value):
                raise FileError(place, f"there is no table {escape(key)}: settings stand alone, each as name = value")
            if setting is None:
                raise UnknownSetting(place, escape(key), nearest(key.replace("-", "_").lower(), settings()))
            origin = Origin("file", key, place)
            yield setting, _from_toml(setting, value, origin.option), origin

    def _from_environment(self) -> _Found:
        by_variable = {setting.environment: setting for setting in settings().values()}
        for name, text in self._environment.items():
            setting = by_variable.get(name)
            if setting is None:
                if not (name in OTHERS or _is_of_a_service(name, text)):
                    raise UnknownSetting("", escape(name), nearest(name.upper(), [*by_variable, *OTHERS]))
            elif text:  # an empty one is as good as none: that is how a variable is taken back in many places
                value = _many(setting, text.split(), name) if setting.many else setting.read(text, given_as=name)
                yield setting, value, Origin("environment", name)

    def _from_command_line(self) -> _Found:
        for name, value in self._given.items():
            setting = settings()[name]
            yield setting, value, Origin("command line", setting.flag)


def _as_called(error: ConfigError, origins: Mapping[str, Origin]) -> ConfigError:
    """The error with the name under which its setting was given, wherever that was."""
    for name, setting in settings().items():
        if setting.flag == error.option and origins[name].option:
            return error.given_as(origins[name].option)
    return error


def _is_of_a_service(name: str, text: str) -> bool:
    return bool(_OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _URL_OF_A_SERVICE.match(text)))


# Text of a file -> values.


def _read(path: str, shown: str) -> tuple[str, dict[str, Any]]:
    """A TOML file as text and as what it says."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileError(shown, f"the configuration file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FileError(f"{shown}:{line}", "a configuration file is UTF-8, which this is not") from None
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise FileError(shown, "there are too many brackets in brackets") from None
    except ValueError as error:  # numbers of thousands of digits too
        problem, place = str(error), shown
        if (where := re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", problem)) is not None:
            problem, place = problem[: where.start()], f"{shown}:{where[1] or max(1, len(text.splitlines()))}"
        raise FileError(place, f"this is no TOML: {problem}") from None


def _line_of(key: str, text: str) -> int | None:
    """The line on which a key stands, or its table begins; None if that cannot be told."""
    for found in re.finditer(rf"^[ \t]*\[*[ \t]*([\"']?){re.escape(key)}\1[ \t]*[=.\]]", text, re.MULTILINE):
        try:
            tomllib.loads(text[: found.start()])
        except (ValueError, RecursionError):  # it is within something else, such as a text of several lines
            continue
        return text.count("\n", 0, found.start()) + 1
    return None


def _is_table(value: dict[str, Any] | list[Any]) -> bool:
    return isinstance(value, dict) or (bool(value) and all(isinstance(item, dict) for item in value))


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", list: "an array", dict: "a table"}


def _from_toml(setting: Setting, value: object, given_as: str) -> Any:
    if setting.many:
        items = value if isinstance(value, list) else [value]
        return _many(setting, [_text(setting, item, given_as) for item in items], given_as)
    return setting.read(_text(setting, value, given_as), given_as=given_as)


def _many(setting: Setting, texts: list[str], given_as: str) -> tuple[Any, ...]:
    if not texts and setting.default:
        raise ConfigError(given_as, "", setting.kind.allowed, "at least one is needed")
    return tuple(setting.read(text, given_as=given_as) for text in texts)


def _text(setting: Setting, value: object, given_as: str) -> str:
    """A value of a file as the text that the command line would have."""
    kind = setting.kind
    if isinstance(value, str):
        return value
    if type(value) not in kind.bare:
        shown = "..." if setting.secret or isinstance(value, dict | list) else _plain(value)
        raise ConfigError(given_as, shown, kind.allowed, f"it is {_WORDS.get(type(value), 'a date or a time')}")
    if isinstance(value, list):
        return ",".join(_text(setting, item, given_as) for item in value)
    return _plain(value)


def _plain(value: object) -> str:
    """A number, true or false, a date or a time, as it is written."""
    if isinstance(value, float):
        return write_number(value)
    if isinstance(value, int) and value.bit_length() > 1024:  # the text of some would be an error in itself
        return "a huge number"
    return str(value).lower()


# Values -> text of a file.

_BARE = re.compile(r"(0|[1-9]\d*)(\.\d+)?|true|false", re.ASCII)


def as_toml(resolved: Resolved) -> str:
    """A configuration as a file, with where each value came from; what the file cannot say is a comment.

    That is a default that follows from other things, which it does as well when the file is read, and a secret.
    """
    lines = [
        (_line(setting, getattr(resolved.config, name), resolved.origins[name]), str(resolved.origins[name]))
        for name, setting in settings().items()
    ]
    width = max(len(line) for line, _ in lines if len(line) <= 48)
    body = "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines)
    return f"# tidegate {version}: every setting, and where its value comes from\n{body}"


def _line(setting: Setting, value: Any, origin: Origin) -> str:
    if origin.source == "default" and setting.default_text:
        return f"# {setting.key}: {setting.default_text}"
    if setting.secret and value != setting.default:
        return f"# {setting.key}: not shown"
    if setting.many:
        return f"{setting.key} = [{', '.join(_toml(setting.kind, item) for item in value)}]"
    return f"{setting.key} = {_toml(setting.kind, value)}"


def _toml(kind: Kind, value: Any) -> str:
    text = kind.write(value)
    if type(value) in kind.bare and _BARE.fullmatch(text):
        return text
    # TOML's strings are JSON's, but for a character that JSON has as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
