"""What the files of deploy/ speak of exists: options, environment variables, keys of settings, metrics, other files.

What must not live here: the guides, which are prose (test_guides.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.fronts import DEPLOY
from tests.support.harness import ROOT
from tidegate import cli
from tidegate.cli.serve import command
from tidegate.config.schema import settings
from tidegate.config.sources import Loader
from tidegate.metrics.catalog import CATALOG

# Options of other programs, which these files show how to call.
OTHERS = {
    "Dockerfile": {"--build-arg", "--time", "--no-install-recommends", "--no-cache-dir", "--uid"}
    | {"--no-create-home", "--shell", "--from", "--interval", "--timeout", "--start-period", "--retries"},
    "compose.yaml": {"--build", "--config.file", "--storage.tsdb.path", "--storage.tsdb.retention.time"},
    "compose.redis.yaml": {"--build", "--no-deps", "--scale", "--no-recreate"}
    | {"--appendonly", "--appendfsync", "--maxmemory", "--maxmemory-policy", "--requirepass"},
    "compose.nats.yaml": {"--build", "--no-deps", "--scale", "--no-recreate"}
    | {"--jetstream", "--store", "--auth", "--http"},
    "redis.yaml": {"--dir", "--appendonly", "--appendfsync", "--maxmemory", "--maxmemory-policy", "--requirepass"},
    "nats.yaml": {"--jetstream", "--store", "--auth", "--http"},
    "deployment.yaml": {"--allowed-unsafe-sysctls"},
    "kustomization.yaml": {"--from-literal"},
    "prometheus-adapter.yaml": {"--install"},
    "60-tidegate.conf": {"--system"},
    "tidegate.service": {"--system", "--now"},
    "tidegate.socket": {"--now"},
}

# Beside the settings.
VARIABLES = {"TIDEGATE_CONFIG"}

# In queries, a metric of ours; elsewhere also what others call by such a name.
NOT_METRICS = {
    "tidegate_connection",  # nginx: a variable
    "tidegate_tls",  # nginx: an upstream, and the cache of sessions
    "tidegate_open_connections",  # of the Prometheus adapter
}

OPTION = r"(?<![\w-])--[a-z][a-z.-]*[a-z]"
COMMAND = r"(?:`|/bin/|-- |NAME |# {5})tidegate ([a-z]+)\b"
VARIABLE = r"\bTIDEGATE_[A-Z_]*[A-Z]\b"
METRIC = r"\btidegate_[a-z_]+\b"
OTHER_FILE = r"(?<![\w./-])(?<!image: )((?:deploy|grafana)/[\w./-]*\w)"

FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and "guides" not in path.parts]
FILES = [path for path in FILES if "__pycache__" not in path.parts]


def identity(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


@pytest.fixture(params=FILES, ids=identity)
def path(request: pytest.FixtureRequest) -> Path:
    """Each file of deploy/."""
    found: Path = request.param
    return found


def test_options(path: Path) -> None:
    """Every command line option that a file mentions exists."""
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known.add("--help")
    spoken = set(re.findall(OPTION, path.read_text(encoding="utf-8")))
    assert spoken - OTHERS.get(path.name, set()) <= known


def test_commands(path: Path) -> None:
    """`tidegate NAME`, where it is told how to call it."""
    text = path.read_text(encoding="utf-8")
    called = re.findall(COMMAND, text)
    assert set(called) <= set(cli.tidegate.list_commands(None))  # type: ignore[arg-type]


def test_variables(path: Path) -> None:
    """Every environment variable that a file mentions exists."""
    known = {setting.environment for setting in settings().values()} | VARIABLES
    assert set(re.findall(VARIABLE, path.read_text(encoding="utf-8"))) <= known


def test_metrics(path: Path) -> None:
    """Every metric that a file mentions is in the catalogue."""
    spoken = set(re.findall(METRIC, path.read_text(encoding="utf-8"))) - NOT_METRICS
    names = {metric.full_name for metric in CATALOG}
    names |= {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}
    assert spoken <= names


def test_other_files(path: Path) -> None:
    """deploy/... and grafana/..., which is also where an image comes from."""
    text = path.read_text(encoding="utf-8")
    for name in re.findall(OTHER_FILE, text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".toml"], ids=identity, indirect=True)
def test_settings(path: Path) -> None:
    """A file of settings can be read."""
    Loader({}, {"TIDEGATE_ADMIN_TOKEN": "0" * 64}, str(path)).load()


def test_there_is_something_to_check() -> None:
    """Or the files have come to be written in another way, which the checks above do not see."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    for pattern in (OPTION, COMMAND, VARIABLE, METRIC, OTHER_FILE):
        assert len(re.findall(pattern, texts)) >= 5, pattern


def test_no_option_of_others_is_named_in_vain() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in FILES}
    assert all(option in texts[name] for name, options in OTHERS.items() for option in options)
