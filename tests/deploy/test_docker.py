"""The container of deploy/docker: its steps lead to a server that runs as the compose file has it.

What must not live here: how that is done without Docker (image.py).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.deploy.fronts import DEPLOY
from tests.deploy.image import Image, can_build, stages
from tests.support.harness import ROOT, free_port, require, wait_until
from tests.support.patience import PATIENCE
from tidegate.config.bind import Tcp
from tidegate.config.schema import settings
from tidegate.config.sources import Loader

COMPOSE = DEPLOY / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


def test_compose_is_what_the_specification_says() -> None:
    """With the schema that check-jsonschema brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_says_who_runs_what() -> None:
    image = stages()[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", image.last("USER")), "by number, for Kubernetes' runAsNonRoot"
    assert json.loads(image.last("ENTRYPOINT")) == ["tidegate"], "no shell before it"
    assert "/livez" in image.last("HEALTHCHECK")
    named = {setting.environment for setting in settings().values()}
    assert {name for name in image.environment() if name.startswith("TIDEGATE_")} <= named | {"TIDEGATE_CONFIG"}
    bind, admin = settings()["bind"].default[0].port, settings()["admin"].default.port
    assert image.last("EXPOSE").split() == [str(bind), str(admin)]
    assert f":{admin}/livez" in image.last("HEALTHCHECK")
    config = Loader({}, {}, str(DEPLOY / "docker" / "tidegate.toml")).load()
    assert config.bind == (Tcp("0.0.0.0", bind),)
    assert config.admin == Tcp("127.0.0.1", admin)


def test_the_base_is_a_python_that_is_supported() -> None:
    found = {stage.base for stage in stages()}
    assert len(found) == 1, "an extension that is built with one Python is loaded by that one only"
    version = re.fullmatch(r"python:(3\.\d+)-slim", found.pop())
    assert version is not None
    assert f"Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_what_compose_mounts_is_there(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source
            else:
                assert source in compose["volumes"]
    build = compose["services"]["tidegate"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_compose_gives_the_daemon_its_time(compose: Any) -> None:
    service = compose["services"]["tidegate"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings()["graceful_timeout"].default + 5
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert set(service["environment"]) <= {setting.environment for setting in settings().values()}
    assert service["sysctls"]["net.core.somaxconn"] >= settings()["backlog"].default


def test_prometheus_finds_the_daemon(compose: Any) -> None:
    config = yaml.safe_load((DEPLOY / "docker" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    plain = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert job["job_name"] == plain["scrape_configs"][0]["job_name"], "the dashboard and the alerts look for it"
    (names,) = job["dns_sd_configs"]
    assert set(names["names"]) <= set(compose["services"])
    admin = compose["services"]["tidegate"]["environment"]["TIDEGATE_ADMIN"]
    assert names["port"] == int(admin.rpartition(":")[2])
    secret = Path(job["authorization"]["credentials_file"]).name
    assert compose["secrets"][secret] == {"environment": "TIDEGATE_ADMIN_TOKEN"}
    assert secret in compose["services"]["prometheus"]["secrets"]


def test_promtool_understands_its_prometheus() -> None:
    require(shutil.which("promtool"), "promtool")
    command = ["promtool", "check", "config", "--syntax-only", str(DEPLOY / "docker" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_steps_lead_to_a_server(tmp_path: Path, compose: Any) -> None:
    """Read-only, without privileges, as process 1; the health check is content; the end is 1001."""
    require(can_build(), "the right to mount an overlay")
    image = Image(tmp_path)
    image.build()
    user = int(image.stages[-1].last("USER").partition(":")[0])
    owned = [path for path in image.written().rglob("*") if not path.is_symlink() and path.stat().st_uid == user]
    assert owned == [image.written() / "run" / "tidegate"], "all else belongs to root, so that nobody changes it"

    port, admin = free_port(), free_port()
    environment = {"TIDEGATE_BIND": f"127.0.0.1:{port}", "TIDEGATE_ADMIN": f"127.0.0.1:{admin}"}
    with image.container(environment, compose["services"]["tidegate"]["tmpfs"]) as container:

        def ready() -> bool:
            assert container.poll() is None, image.log()
            with contextlib.suppress(OSError):
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                return opener.open(f"http://127.0.0.1:{admin}/readyz", timeout=PATIENCE).status == 200
            return False

        wait_until(ready, "readiness")
        (first,) = psutil.Process(container.pid).children()
        assert first.uids().real == user
        mounts = [line.split() for line in Path(f"/proc/{first.pid}/mounts").read_text().splitlines()]
        assert [options.split(",")[0] for _, place, _, options, *_ in mounts if place == "/"] == ["ro"]
        status = Path(f"/proc/{first.pid}/status").read_text()
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        check = json.loads(image.stages[-1].last("HEALTHCHECK").partition("CMD ")[2])
        default = str(settings()["admin"].default.port)
        image.run([word.replace(default, str(admin)) for word in check], {})
        url = f"ws://127.0.0.1:{port}/"
        with connect(url, subprotocols=[Subprotocol("tidegate.v1")], proxy=None) as websocket:
            websocket.send('{"join": {"chat:lobby": null}}')
            websocket.send('{"publish": "chat:lobby", "data": {"name": "me", "text": "hello"}}')
            while "hello" not in websocket.recv(timeout=PATIENCE):
                pass
            first.send_signal(signal.Signals[image.stages[-1].last("STOPSIGNAL")])
            for _ in websocket:
                pass  # what workers say in the chat, until the end
        assert websocket.close_code == 1001
        assert container.wait(PATIENCE) == 0, image.log()
