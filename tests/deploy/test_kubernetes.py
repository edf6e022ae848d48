"""The manifests of deploy/kubernetes: Kubernetes' own schemas accept them, and they fit the daemon and each other.

What must not live here: a cluster.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.fronts import DEPLOY
from tests.deploy.image import stages
from tidegate.config.schema import settings
from tidegate.config.sources import Loader
from tidegate.metrics.catalog import CATALOG

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ["1.30", "1.34", kubernetes_validate.latest_version()]

# No schemas of these come with Kubernetes: the fields that are documented, as far as they are used here.
STRING = {"type": "string"}
CUSTOM = {
    "ServiceMonitor": {
        "type": "object",
        "additionalProperties": False,
        "required": ["selector", "endpoints"],
        "properties": {
            "selector": {"type": "object", "required": ["matchLabels"], "additionalProperties": False,
                         "properties": {"matchLabels": {"type": "object", "additionalProperties": STRING}}},
            "jobLabel": STRING,
            "endpoints": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "port": STRING,
                        "path": {"type": "string", "pattern": "^/"},
                        "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                        "authorization": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "type": STRING,
                                "credentials": {"type": "object", "required": ["name", "key"],
                                                "additionalProperties": False,
                                                "properties": {"name": STRING, "key": STRING}},
                            },
                        },
                    },
                },
            },
        },
    },
    "Kustomization": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"},
            "kind": STRING,
            "resources": {"type": "array", "items": STRING, "uniqueItems": True},
            "labels": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"pairs": {"type": "object", "additionalProperties": STRING},
                                   "includeSelectors": {"type": "boolean"}, "includeTemplates": {"type": "boolean"}},
                },
            },
            "configMapGenerator": {
                "type": "array",
                "items": {"type": "object", "required": ["name", "files"], "additionalProperties": False,
                          "properties": {"name": STRING, "files": {"type": "array", "items": STRING}}},
            },
            "images": {
                "type": "array",
                "items": {"type": "object", "required": ["name"], "additionalProperties": False,
                          "properties": {"name": STRING, "newName": STRING, "newTag": STRING}},
            },
        },
    },
}  # fmt: skip


def load(name: str) -> Any:
    """The one document of a file."""
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


KUSTOMIZATION = load("kustomization.yaml")
MANIFESTS = {name: load(name) for name in KUSTOMIZATION["resources"]}
POD = MANIFESTS["deployment.yaml"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
CONFIG = Loader({}, {"TIDEGATE_ADMIN_TOKEN": "0" * 64}, str(FOLDER / "tidegate.toml")).load()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_schemas(name: str, version: str) -> None:
    """Each manifest is valid by its schema."""
    manifest = MANIFESTS[name]
    if manifest["kind"] in CUSTOM:
        jsonschema.validate(manifest["spec"], CUSTOM[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_kustomization() -> None:
    """The kustomization lists every manifest, and its names are those of the manifests."""
    jsonschema.validate(KUSTOMIZATION, CUSTOM["Kustomization"])
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}  # the second is for Helm
    assert {path.name for path in FOLDER.glob("*.yaml")} - others == set(KUSTOMIZATION["resources"])
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    assert all((FOLDER / file).is_file() for file in generated["files"])
    assert [image["name"] for image in KUSTOMIZATION["images"]] == [CONTAINER["image"]]
    assert {"settings": generated["name"]} == {
        volume["name"]: volume["configMap"]["name"] for volume in POD["volumes"] if "configMap" in volume
    }


def test_a_pod_has_the_time_to_end() -> None:
    """First the network forgets it, then it drains, then the handlers that hang are killed: all by itself."""
    sleep, seconds = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert POD["terminationGracePeriodSeconds"] >= int(seconds) + CONFIG.graceful_timeout + 5 + 5
    assert CONFIG.drain_window < CONFIG.graceful_timeout


def test_probes_ask_what_they_should() -> None:
    asked = {kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {get["port"] for get in asked.values()} == {"admin"}
    startup = CONTAINER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > CONFIG.boot_timeout


def test_ports_are_the_daemons() -> None:
    assert CONFIG.admin is not None
    assert not CONFIG.admin.loopback, "probes and Prometheus come from elsewhere"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"websocket": CONFIG.bind[0].port, "admin": CONFIG.admin.port}  # type: ignore[union-attr]
    assert {port["targetPort"] for port in MANIFESTS["service.yaml"]["spec"]["ports"]} == set(ports)


def test_the_container_is_the_images() -> None:
    image = stages()[-1]
    context = POD["securityContext"]
    assert image.last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert "command" not in CONTAINER, "the image's ENTRYPOINT"
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    control, config = (image.environment()[name] for name in ("TIDEGATE_CONTROL", "TIDEGATE_CONFIG"))
    assert {control.rpartition("/")[0], config.rpartition("/")[0], "/tmp"} == mounts
    assert config.rpartition("/")[2] in KUSTOMIZATION["configMapGenerator"][0]["files"]
    named = {setting.environment for setting in settings().values()}
    assert {variable["name"] for variable in CONTAINER["env"]} <= named


def test_who_gets_in_can_do_nothing() -> None:
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False


def test_everything_finds_the_pods() -> None:
    labels = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    for name in ("deployment.yaml", "poddisruptionbudget.yaml"):
        assert MANIFESTS[name]["spec"]["selector"]["matchLabels"] == labels
    service, monitor = MANIFESTS["service.yaml"], MANIFESTS["servicemonitor.yaml"]
    assert service["spec"]["selector"] == labels
    assert service["metadata"]["labels"] == monitor["spec"]["selector"]["matchLabels"]
    assert monitor["spec"]["jobLabel"] in service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (token,) = [v["valueFrom"]["secretKeyRef"] for v in CONTAINER["env"] if v["name"] == "TIDEGATE_ADMIN_TOKEN"]
    assert endpoint["authorization"]["credentials"] == token
    target = MANIFESTS["hpa.yaml"]["spec"]["scaleTargetRef"]
    deployment = MANIFESTS["deployment.yaml"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }


def test_the_autoscaler_has_its_metric() -> None:
    (rule,) = load("prometheus-adapter.yaml")["rules"]["custom"]
    asked = [
        metric["pods"]["metric"]["name"] for metric in MANIFESTS["hpa.yaml"]["spec"]["metrics"] if "pods" in metric
    ]
    assert asked == [rule["name"]["as"]]
    name = rule["seriesQuery"].partition("{")[0]
    (metric,) = [metric for metric in CATALOG if metric.full_name == name]
    assert "state" in metric.labels
    assert 'state="open"' in rule["seriesQuery"]
    assert 'state="open"' in rule["metricsQuery"]
