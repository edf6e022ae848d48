"""The sources of settings: a TOML file, the environment, the command line, each with precedence over those before.

    Loader      the sources of a process; `load` reads the file again each time, `resolve` adds the origin of each value
    Resolved    a configuration, and the origin of each of its values
    as_toml     the same as a file that can be read again

In a file a key is a setting's name, `ping_interval = 10`; an environment variable is its name in capitals after
TIDEGATE_, TIDEGATE_PING_INTERVAL=10. A value is written as on the command line; a file may have numbers, true and false
without quotes, and an array for a repeatable setting, whose values an environment variable separates by spaces.
A value replaces those of sources before it, as a whole. An unknown name is an error in every source: ignored, a
misspelt setting would stay unnoticed.

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

from ..process.working_directory import here
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
    "TIDEGATE_TRIALS": "tests",
}

# Kubernetes gives each container variables for each service of its namespace: one called tidegate, or tidegate-admin,
# makes these, and must keep no daemon from starting.
_OF_A_SERVICE = re.compile(r"TIDEGATE(_\w+)?(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_URL_OF_A_SERVICE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class FileError(ConfigError):
    """A configuration file that cannot be read, or is not TOML.

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
    """A name that is not a setting.

    Attributes:
        place: path and line, if it is in a file.
        name: the unknown name.
        meant: the most similar setting, empty if none is similar.
    """

    def __init__(self, place: str, name: str, meant: str) -> None:
        super().__init__(name, "", meant or "a setting of `tidegate serve --help`")
        self.place, self.name, self.meant = place, name, meant

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        what = f"there is no setting {self.name}" if self.place else f"{self.name} in the environment is not a setting"
        hint = f"did you mean {self.meant}?" if self.meant else "`tidegate serve --help` lists them"
        return f"{where}{what}: {hint}"


class MissingSetting(ConfigError):
    """A setting without a default that no source gives."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting.flag, "", setting.kind.allowed)

    def __str__(self) -> str:
        return f"{self.option} is missing: give {self.allowed}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value.

    Attributes:
        source: the kind of source.
        name: the setting's name there.
        place: path and line, in a file.
    """

    source: Literal["default", "file", "environment", "command line"]
    name: str = ""
    place: str = ""

    def __str__(self) -> str:
        return f"{self.source} {self.place or self.name}".rstrip()

    @property
    def option(self) -> str:
        """Return the setting's name for an error."""
        return f"{self.place}: {self.name}" if self.place else self.name


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration and its origins.

    Attributes:
        config: the settings.
        origins: the origin of each value, by the setting's name.
    """

    config: Config
    origins: Mapping[str, Origin]


_Found: TypeAlias = Iterator[tuple[Setting, Any, Origin]]


class Loader:
    """The sources of a process's settings, as they were at its start; only the file is read again.

    Parameters:
        given: the values of the command line, by name.
        environment: the environment's variables.
        path: the configuration file; None for the one that TIDEGATE_CONFIG names, if any.
    """

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str], path: str | None = None) -> None:
        self._given = dict(given)
        self._environment = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
        self.path = path or self._environment.get(CONFIG) or None
        # Made absolute now: the daemon may change its directory before it reads the file again.
        self._absolute = os.path.join(here(), self.path) if self.path is not None else ""

    @property
    def file(self) -> str | None:
        """Return the absolute path of the configuration file, if any."""
        return self._absolute or None

    def load(self) -> Config:
        """Return the configuration as the sources give it now.

        Raises:
            ConfigError: the file cannot be read, a source has an unknown name, or a value is not allowed.
        """
        return self.resolve().config

    def resolve(self) -> Resolved:
        """Return the configuration with the origin of each value; raises as `load()`."""
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
                raise FileError(place, f"there is no table {escape(key)}: write each setting as name = value")
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
            elif text:  # an empty variable counts as unset: some tools cannot remove one
                value = _many(setting, text.split(), name) if setting.many else setting.read(text, given_as=name)
                yield setting, value, Origin("environment", name)

    def _from_command_line(self) -> _Found:
        for name, value in self._given.items():
            setting = settings()[name]
            yield setting, value, Origin("command line", setting.flag)


def _as_called(error: ConfigError, origins: Mapping[str, Origin]) -> ConfigError:
    """Return the error with the name under which its setting was given."""
    for name, setting in settings().items():
        if setting.flag == error.option and origins[name].option:
            return error.given_as(origins[name].option)
    return error


def _is_of_a_service(name: str, text: str) -> bool:
    return bool(_OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _URL_OF_A_SERVICE.match(text)))


# Text of a file -> values.


def _read(path: str, shown: str) -> tuple[str, dict[str, Any]]:
    """Return a TOML file as text and as a table."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileError(shown, f"the configuration file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FileError(f"{shown}:{line}", "the file is not UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise FileError(shown, "brackets are nested too deeply") from None
    except ValueError as error:  # numbers of thousands of digits too
        problem, place = str(error), shown
        if (where := re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", problem)) is not None:
            problem, place = problem[: where.start()], f"{shown}:{where[1] or max(1, len(text.splitlines()))}"
        raise FileError(place, f"this is not TOML: {problem}") from None


def _line_of(key: str, text: str) -> int | None:
    """Return the line of a key, or of the start of its table; None if it cannot be found."""
    for found in re.finditer(rf"^[ \t]*\[*[ \t]*([\"']?){re.escape(key)}\1[ \t]*[=.\]]", text, re.MULTILINE):
        try:
            tomllib.loads(text[: found.start()])
        except (ValueError, RecursionError):  # a match within something else, such as a multi-line string
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
    """Return a value of a file as it would be written on the command line."""
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
    """Return a number, true or false, a date or a time as text."""
    if isinstance(value, float):
        return write_number(value)
    if isinstance(value, int) and value.bit_length() > 1024:  # str() refuses to write some of them
        return "a huge number"
    return str(value).lower()


# Values -> text of a file.

_BARE = re.compile(r"(0|[1-9]\d*)(\.\d+)?|true|false", re.ASCII)


def as_toml(resolved: Resolved) -> str:
    """Return a configuration as a file, with the origin of each value.

    Secrets, and defaults that are derived from other things, are comments.
    """
    lines = [
        (_line(setting, getattr(resolved.config, name), resolved.origins[name]), str(resolved.origins[name]))
        for name, setting in settings().items()
    ]
    width = max(len(line) for line, _ in lines if len(line) <= 48)
    body = "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines)
    return f"# tidegate {version}: every setting, and the source of its value\n{body}"


def _line(setting: Setting, value: Any, origin: Origin) -> str:
    if origin.source == "default" and setting.default_text:
        return f"# {setting.key}: {setting.default_text}"
    if setting.secret and setting.show(value) != setting.write(value):
        return f"# {setting.key}: {setting.show(value) or 'not shown'}"
    if setting.many:
        return f"{setting.key} = [{', '.join(_toml(setting.kind, item) for item in value)}]"
    return f"{setting.key} = {_toml(setting.kind, value)}"


def _toml(kind: Kind, value: Any) -> str:
    text = kind.write(value)
    if type(value) in kind.bare and _BARE.fullmatch(text):
        return text
    # TOML's strings are JSON's, but for a character that JSON has as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
