"""What the deployment's files say, read once, and built as kustomize builds them."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
K8S = DEPLOY / "k8s"
BASE = K8S / "base"
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


@cache
def manifests() -> tuple[Manifest, ...]:
    """Return what `kubectl apply -k deploy/k8s` would send, but for the hashes in the names of ConfigMaps."""
    (kustomization,) = documents(BASE / "kustomization.yaml")
    built = [each for resource in kustomization["resources"] for each in documents(BASE / resource)]
    for generated in kustomization["configMapGenerator"]:
        data = {Path(file).name: (BASE / file).read_text() for file in generated["files"]}
        built.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data})
    tags = {image["name"]: image["newTag"] for image in kustomization["images"]}
    for each in built:
        for labels in kustomization["labels"]:
            each["metadata"].setdefault("labels", {}).update(labels["pairs"])
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = kustomization["namespace"]
        for container in containers(each):
            container["image"] = f"{container['image']}:{tags[container['image']]}"
    return tuple(built)


@cache
def built(overlay: str) -> tuple[Manifest, ...]:
    """Return what kubectl makes of an overlay, but for the hashes in the names of ConfigMaps."""
    command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = re.sub(r"(redis-config|mongo-config|postgres-config)-[a-z0-9]{10}", r"\1", text)
    return tuple(yaml.safe_load_all(text))


def manifest(kind: str, name: str, among: Sequence[Manifest] = ()) -> Manifest:
    among = among or manifests()
    (found,) = [each for each in among if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(among: Sequence[Manifest] = ()) -> Iterator[tuple[str, Manifest]]:
    """Yield the name and the pod template of everything that runs pods."""
    for each in among or manifests():
        template = pod_template(each)
        if template:
            yield each["metadata"]["name"], template


def pod_template(of: Manifest) -> Manifest | None:
    spec = of.get("spec", {})
    if of["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Manifest | None = spec.get("template")
    return template


def containers(of: Manifest) -> list[Manifest]:
    template = pod_template(of)
    return template["spec"]["containers"] if template else []


def environment_of(container: Manifest, **values: str) -> dict[str, str]:
    """Return the plain variables of a container, with `$(NAME)` replaced as Kubernetes does."""
    found: dict[str, str] = {}
    for each in container["env"]:
        if "value" in each:
            value = str(each["value"])
            for name, text in values.items():
                value = value.replace(f"$({name})", text)
            found[each["name"]] = value
    return found


def make_secrets(kind: str, home: Path, overlay: str = "") -> Path:
    """Make the secrets of that kind of deployment; return their folder."""
    environment = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(home)}
    script = str(DEPLOY / "make-secrets")
    subprocess.run(
        ["sh", script, kind, *filter(None, [overlay])], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return home / kind
