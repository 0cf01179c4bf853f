"""The Helm chart: what it makes is what kustomize makes, and each value changes what it says."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.files import DEPLOY, Manifest, built, containers, environment_of, manifest, pod_template, pods
from tests.deploy.test_kubernetes import VERSIONS

CHART = DEPLOY / "helm" / "onesource"
HELM = shutil.which("helm")
KUBECTL = shutil.which("kubectl")
TOPOLOGIES = ("single", "sentinel", "cluster")

with_helm = pytest.mark.skipif(not HELM, reason="no helm here")


def helm(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HELM or "helm", *words], capture_output=True, text=True, timeout=60)


def template(*values: str) -> list[Manifest]:
    """Return what the chart makes with these values."""
    options = [word for value in values for word in ("--set-string" if value.startswith("env.") else "--set", value)]
    done = helm("template", "onesource", str(CHART), "--namespace", "onesource", *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def plain(found: Manifest) -> Manifest:
    """Return it without what belongs to the tool: the namespace, Helm's checksum, the order of variables."""
    found = yaml.safe_load(yaml.safe_dump(found))
    found["metadata"].pop("namespace", None)
    if pods_of := pod_template(found):
        annotations = pods_of["metadata"].get("annotations", {})
        annotations.pop("checksum/config", None)
        if not annotations:
            pods_of["metadata"].pop("annotations", None)
        for container in containers(found):
            container.setdefault("env", []).sort(key=lambda each: str(each["name"]))
    return found


@with_helm
@pytest.mark.skipif(not KUBECTL, reason="no kubectl here")
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_it_is_the_overlay(topology: str) -> None:
    ours = {(each["kind"], each["metadata"]["name"]): plain(each) for each in template(f"redis.topology={topology}")}
    theirs = {(each["kind"], each["metadata"]["name"]): plain(each) for each in built(topology)}
    del theirs["Namespace", "onesource"]  # helm install --create-namespace
    assert ours.keys() == theirs.keys()
    for name, each in theirs.items():
        assert ours[name] == each


@with_helm
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_helm_finds_nothing_wrong_in_it(topology: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--set", f"redis.topology={topology}")
    assert done.returncode == 0, done.stdout


@with_helm
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_what_its_schema_says(topology: str, version: str) -> None:
    for each in template(f"redis.topology={topology}"):
        assert kubernetes_validate.validate(each, version, strict=True) == version


@with_helm
def test_each_value_changes_what_it_says() -> None:
    made = template(
        "images.onesource=registry.example:5000/onesource:1", "replicas.min=3", "replicas.max=40", "env.HTTPS=1",
        "env.CONV_TTL_SECONDS=60", "env.CHAT_RATE=5/min", "resources.redis.limits.memory=8Gi", "storage.redis=50Gi",
        "storageClass=fast", "backup.schedule=1 2 * * *", "backup.keep=7", "network.ingressNamespace=gateway",
        "imagePullSecrets[0].name=registry", "mongo.enabled=false", "postgres.enabled=false",
    )  # fmt: skip
    service = manifest("Deployment", "onesource", made)
    (container,) = containers(service)
    assert container["image"] == "registry.example:5000/onesource:1"
    expected = {"HTTPS": "1", "CONV_TTL_SECONDS": "60", "CHAT_RATE": "5/min", "REPLICAS": "40", "PORT": "8001"}
    assert environment_of(container).items() >= expected.items()
    assert len({each["name"] for each in container["env"]}) == len(container["env"])
    scaler = manifest("HorizontalPodAutoscaler", "onesource", made)["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 40)
    (redis,) = containers(manifest("Deployment", "redis", made))
    assert redis["resources"] == {"limits": {"memory": "8Gi"}}
    claim = manifest("PersistentVolumeClaim", "redis-data", made)["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("50Gi", "fast")
    job = manifest("CronJob", "onesource-backup", made)["spec"]
    assert job["schedule"] == "1 2 * * *"
    (backup,) = containers(manifest("CronJob", "onesource-backup", made))
    assert backup["command"][-2:] == ["--keep", "7"]
    assert environment_of(backup)["CONV_TTL_SECONDS"] == "60"
    assert "HTTPS" not in environment_of(backup)
    assert "gateway" in str(manifest("NetworkPolicy", "onesource", made))
    assert {template["spec"]["imagePullSecrets"][0]["name"] for _, template in pods(made)} == {"registry"}
    assert not [each for each in made if each["metadata"]["name"] in ("mongo-config", "postgres-config")]
    assert not [each for each in made if each["kind"] == "StatefulSet"]


@with_helm
def test_another_configuration_restarts_what_reads_it() -> None:
    def checksums(*values: str) -> set[str]:
        return {each["metadata"]["annotations"]["checksum/config"] for _, each in pods(template(*values))}

    assert len(checksums()) == 1
    assert re.fullmatch(r"[0-9a-f]{64}", *checksums())


BAD: list[tuple[str, str]] = [
    ("redis.topology=two", "topology"), ("replicas.min=1", "replicas"), ("replicas.max=0", "replicas"),
    ("env.lower=x", "env"), ("env.HTTPS=1", "HTTPS"), ("storage.redis=5", "redis"), ("images.redis=", "redis"),
    ("redis.sentinels=3", "sentinels"), ("backup.keep=0", "keep"), ("mongo.enabled=perhaps", "mongo"),
    ("nothing=1", "nothing"),
]  # fmt: skip


@with_helm
@pytest.mark.parametrize(("value", "named"), BAD)
def test_a_bad_value_is_refused_by_its_name(value: str, named: str) -> None:
    done = helm("template", "onesource", str(CHART), "--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_every_value_has_a_schema_and_the_images_are_those_of_the_base() -> None:
    import json

    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) | {"global"} == set(schema["properties"])
    (kustomization,) = yaml.safe_load_all((CHART / "files" / "base" / "kustomization.yaml").read_text())
    images = {image["name"]: f"{image['name']}:{image['newTag']}" for image in kustomization["images"]}
    assert values["images"] == images
