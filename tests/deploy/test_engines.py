"""Engines of channels in deploy/docker and deploy/kubernetes: their servers are started as the files say, and used.

What must not live here: the daemon's own files (test_docker.py, test_kubernetes.py), what an engine promises
(tests/bus).
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.fronts import DEPLOY
from tests.deploy.test_docker import COMPOSE
from tests.deploy.test_kubernetes import CONTAINER, CUSTOM, VERSIONS
from tests.support.harness import free_port, require, wait_until
from tidegate import Bus, Channel
from tidegate.bus.nats_url import parse as parse_nats
from tidegate.bus.redis_url import parse as parse_redis
from tidegate.config.schema import settings

ENGINES = {"redis": parse_redis, "nats": parse_nats}
SECRETS = {"REDIS_PASSWORD": "secret", "NATS_TOKEN": "secret", "REDISCLI_AUTH": "secret"}
KUBERNETES = DEPLOY / "kubernetes"
HAPROXY = DEPLOY / "docker" / "haproxy.cfg"

each_engine = pytest.mark.parametrize("engine", ENGINES)


def compose_file(engine: str) -> Path:
    return DEPLOY / "docker" / f"compose.{engine}.yaml"


def compose(engine: str) -> Any:
    return yaml.safe_load(compose_file(engine).read_text(encoding="utf-8"))


def manifest(engine: str, name: str) -> Any:
    return yaml.safe_load((KUBERNETES / engine / name).read_text(encoding="utf-8"))


def filled(text: str) -> str:
    """A text with the secrets in place of their variables, in the forms of compose, of a shell and of Kubernetes."""
    return re.sub(r"\$[{(]?([A-Z_]+)(?::\?[^}]*)?[})]?", lambda found: SECRETS[found[1]], text)


@each_engine
def test_compose_is_what_the_specification_says(engine: str) -> None:
    path = str(compose_file(engine))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_engine
def test_the_daemons_are_as_in_the_plain_file(engine: str) -> None:
    """Two of them, without a port of their own, and with a bus."""
    plain = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["tidegate"]
    service = compose(engine)["services"]["tidegate"]
    assert service.pop("deploy") == {"replicas": 2}
    assert service.pop("depends_on") == {engine: {"condition": "service_healthy"}}
    bus = service["environment"].pop("TIDEGATE_BUS")
    assert "TIDEGATE_BUS" in {setting.environment for setting in settings().values()}
    assert ENGINES[engine](filled(bus))
    plain.pop("ports")
    assert service == plain


@each_engine
def test_what_compose_mounts_is_there(engine: str) -> None:
    found = compose(engine)
    for service in found["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / "docker" / source).exists() if source.startswith(".") else source in found["volumes"]


def test_haproxy_understands_its_file() -> None:
    require(shutil.which("haproxy"), "haproxy")
    done = subprocess.run(["haproxy", "-c", "-f", str(HAPROXY)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    template = re.search(r"server-template tidegate \d+ tidegate:(\d+) .* check port (\d+)", HAPROXY.read_text())
    assert template is not None
    bind, admin = settings()["bind"].default[0].port, settings()["admin"].default.port
    assert (int(template[1]), int(template[2])) == (bind, admin)


@each_engine
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_what_kubernetes_says(engine: str, version: str) -> None:
    for name in (f"{engine}.yaml", "service.yaml"):
        kubernetes_validate.validate(manifest(engine, name), version, strict=True)


@each_engine
def test_what_kustomizations_name_is_there_and_fits(engine: str) -> None:
    kustomization = manifest(engine, "kustomization.yaml")
    (component,) = kustomization.pop("components")
    jsonschema.validate(kustomization, CUSTOM["Kustomization"])
    for resource in kustomization["resources"]:
        assert (KUBERNETES / engine / resource).resolve().exists()
    (patch,) = yaml.safe_load((KUBERNETES / engine / component / "kustomization.yaml").read_text())["patches"]
    change = yaml.safe_load((KUBERNETES / engine / component / patch["path"]).read_text())
    (container,) = change["spec"]["template"]["spec"]["containers"]
    assert container["name"] == CONTAINER["name"]
    (variable,) = container["env"]
    assert variable["name"] == "TIDEGATE_BUS"
    assert variable["name"] not in {there["name"] for there in CONTAINER["env"]}


@each_engine
def test_what_the_secret_has_leads_to_the_server(engine: str) -> None:
    """The commands above the kustomization make the keys that are asked for, and a URL with the service in it."""
    head = (KUBERNETES / engine / "kustomization.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    made = dict(re.findall(r"--from-literal=(\w+)=(\S+)", head.partition("tidegate-bus")[2]))
    service = manifest(engine, "service.yaml")
    (port,) = service["spec"]["ports"]
    assert f"@{service['metadata']['name']}:{port['port']}/" in made["url"]
    assert ENGINES[engine](re.sub(r"\$\w+", "secret", made["url"]))
    stateful = manifest(engine, f"{engine}.yaml")
    template = stateful["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"] == stateful["spec"]["selector"]["matchLabels"]
    (container,) = template["spec"]["containers"]
    assert port["targetPort"] in {known["name"] for known in container["ports"]}
    keys = {variable["valueFrom"]["secretKeyRef"]["key"] for variable in container["env"]}
    assert keys <= set(made)


def commands() -> Iterator[Any]:
    """How each file starts its server: the engine, and the words."""
    for engine in ENGINES:
        command = compose(engine)["services"][engine]["command"]
        words = shlex.split(filled(command)) if isinstance(command, str) else [f"{engine}-server", *command]
        yield pytest.param(engine, words, id=f"compose-{engine}")
        (container,) = manifest(engine, f"{engine}.yaml")["spec"]["template"]["spec"]["containers"]
        (*_, text) = container["args"]
        words = shlex.split(text)[1:] if "command" in container else ["nats-server", *container["args"]]
        yield pytest.param(engine, words, id=f"kubernetes-{engine}")


@contextlib.contextmanager
def running(engine: str, words: Sequence[str], folder: Path) -> Iterator[int]:
    """The server of such words on this machine: on a free port, below a folder."""
    require(shutil.which(words[0]), words[0])
    ports = {"8222": str(free_port())}
    words = [ports.get(word, filled(word)).replace("/data", str(folder)) for word in words]
    port = free_port()
    here = ("--bind", "127.0.0.1", "--dir", str(folder)) if engine == "redis" else ("--addr", "127.0.0.1")
    command = [*words, "--port", str(port), *here]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        try:
            wait_until(answers, "the server")
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize(("engine", "words"), list(commands()))
async def test_the_server_of_the_file_stores_what_is_published(engine: str, words: list[str], tmp_path: Path) -> None:
    credentials = ":secret" if engine == "redis" else "secret"
    with running(engine, words, tmp_path) as port:
        url = f"{engine}://{credentials}@127.0.0.1:{port}"
        async with Bus(url, channels={"chat:": Channel(history=10, keep=60)}) as bus:
            position = await bus.publish("chat:1", "Hello")
            page = await bus.history("chat:1")
            assert [(message.data, message.position) for message in page] == [("Hello", position)]
