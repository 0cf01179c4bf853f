"""The manifests: valid for Kubernetes, named as the runbook names them, and at one with the settings and each other."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.conf import settings as ours
from django.core.management import get_commands, load_command_class
from django.test import Client
from pytest_django import Settings

from tests.deploy.files import (
    BASE,
    DEPLOY,
    K8S,
    ROOT,
    Manifest,
    built,
    containers,
    documents,
    environment_of,
    make_secrets,
    manifest,
    manifests,
    pod_template,
    pods,
)

VERSIONS = ("1.29", "1.37")
PODS = ("onesource", "redis", "mongo", "postgres", "postgres-dump", "onesource-backup", "onesource-trim")
# What the operations runbook sets or greps, as it expects it before anybody touches it.
RUNBOOK_ENV = {
    "CONV_STORE_PRIMARY": "redis",
    "CONV_TTL_SECONDS": "2592000",
    "REDIS_SOCKET_TIMEOUT_MS": "200",
    "REDIS_CONNECT_TIMEOUT_MS": "100",
    "CONV_DUAL_WRITE": "1",  # our deployment's; the code's default is 0
}
GIBI = {"Mi": 1 / 1024, "Gi": 1, "mb": 1 / 1024, "gb": 1}


def service() -> Manifest:
    (container,) = containers(manifest("Deployment", "onesource"))
    return container


def check_hardening(spec: Manifest) -> None:
    """Raise AssertionError where a pod may do more than it has to."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["fsGroup"] == context["runAsUser"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert re.search(r":[0-9][\w.-]*$", container["image"]), "an image has a version"


def size(text: str) -> float:
    """Return a size in gibibytes."""
    return float(text[:-2]) * GIBI[text[-2:]]


class TestValidity:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_every_manifest_is_what_its_schema_says(self, version: str) -> None:
        others = [*documents(K8S / "secrets.example.yaml"), *documents(K8S / "optional" / "egress.yaml")]
        for each in [*manifests(), *others]:
            assert kubernetes_validate.validate(each, version, strict=True) == version

    def test_a_wrong_one_is_refused(self) -> None:
        wrong = yaml.safe_load(yaml.safe_dump(manifest("Deployment", "onesource")))
        wrong["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)

    @pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
    @pytest.mark.parametrize("folder", [".", "overlays/single"])
    def test_kustomize_builds_what_is_tested_here(self, folder: str) -> None:
        ours = {(each["kind"], each["metadata"]["name"]): each for each in manifests()}
        theirs = {(each["kind"], each["metadata"]["name"]): each for each in built(f"../{folder}")}
        assert theirs == ours

    def test_no_file_is_left_out(self) -> None:
        (kustomization,) = documents(BASE / "kustomization.yaml")
        named = {*kustomization["resources"], *(f for g in kustomization["configMapGenerator"] for f in g["files"])}
        there = {str(file.relative_to(BASE)) for file in BASE.rglob("*") if file.is_file()}
        assert there - named == {"kustomization.yaml"}


OURS = (("onesource", 8001), ("onesource", 8002))


class TestTheRunbooksNames:
    @pytest.mark.parametrize("name", ["onesource", "redis"])
    def test_its_deployments_and_labels(self, name: str) -> None:
        found = manifest("Deployment", name)
        assert found["spec"]["selector"] == {"matchLabels": {"app": name}}
        assert found["spec"]["template"]["metadata"]["labels"]["app"] == name

    def test_no_other_pod_has_their_labels(self) -> None:
        assert sorted(template["metadata"]["labels"]["app"] for _, template in pods()) == sorted(PODS)

    def test_redis_service_is_redis(self) -> None:
        found = manifest("Service", "redis-service")["spec"]
        assert (found["selector"], found["ports"][0]["port"]) == ({"app": "redis"}, 6379)

    def test_the_service_answers_on_8001(self) -> None:
        assert manifest("Service", "onesource")["spec"]["ports"][0]["port"] == 8001
        assert {"name": "http", "containerPort": 8001} in service()["ports"]
        assert environment_of(service())["PORT"] == "8001"

    def test_probes_and_metrics_have_a_port_that_no_client_reaches(self) -> None:
        assert {"name": "management", "containerPort": 8002} in service()["ports"]
        assert environment_of(service())["MANAGEMENT_PORT"] == "8002"
        assert [port["port"] for port in manifest("Service", "onesource")["spec"]["ports"]] == [8001]

    def test_what_it_sets_is_a_plain_variable_with_the_value_it_expects(self) -> None:
        assert environment_of(service()).items() >= RUNBOOK_ENV.items()

    @pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
    def test_kubectl_set_env_works_as_it_is_written(self, tmp_path: Path) -> None:
        path = tmp_path / "deployment.yaml"
        path.write_text(yaml.safe_dump(manifest("Deployment", "onesource")))
        switched = subprocess.run(
            ["kubectl", "set", "env", "--local", "-f", str(path), "-o", "yaml", "CONV_STORE_PRIMARY=mongo"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        (container,) = containers(yaml.safe_load(switched))
        assert environment_of(container) == environment_of(service()) | {"CONV_STORE_PRIMARY": "mongo"}

    def test_the_snapshot_is_where_it_copies_it_from(self) -> None:
        (container,) = containers(manifest("Deployment", "redis"))
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
        assert "${DATA:-/data}" in (BASE / "redis" / "start.sh").read_text()
        assert "dbfilename dump.rdb" in (BASE / "redis" / "redis.conf").read_text()


class TestSettings:
    def test_every_variable_is_a_setting(self) -> None:
        known = set(re.findall(r'"([A-Z][A-Z_]+)"', (ROOT / "onesource" / "settings.py").read_text()))
        for name, template in pods():
            for container in template["spec"]["containers"]:
                if container["image"].startswith("onesource:"):
                    variables = {each["name"].removesuffix("_FILE") for each in container["env"]} - {"POD_IP"}
                    assert variables <= known, name

    def test_the_service_starts_with_them(self, tmp_path: Path) -> None:
        secrets = make_secrets("k8s", tmp_path)
        variables = environment_of(service(), POD_IP="10.1.2.3")
        variables = {name: value.replace("/run/secrets", str(secrets)) for name, value in variables.items()}
        code = (
            "from onesource import settings as s; print(s.EMBEDDED, s.REDIS_URL.rpartition('@')[2], "
            "s.DATABASES['mongo']['NAME'], '10.1.2.3' in s.ALLOWED_HOSTS, s.CHAT_AUTH, s.CONV_DUAL_WRITE, "
            "s.DATABASES['default']['HOST'], s.DATABASES['default']['USER'], list(s.CHAT_KEYS), s.ADMIN_OTP)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"], **variables},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert output == "False redis-service:6379/0 onesource True token True postgres onesource ['1'] True\n"

    @pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe", "readinessProbe"])
    def test_a_probe_by_the_pods_address_is_answered(self, kind: str, settings: Settings) -> None:
        settings.ALLOWED_HOSTS = ["localhost"]
        asked = service()[kind]["httpGet"]
        headers = {each["name"]: each["value"] for each in asked["httpHeaders"]}
        assert asked["port"] == "management"
        assert Client().get(asked["path"], headers=headers).status_code == 200

    def test_a_restart_is_never_the_stores_fault(self) -> None:
        asked = {kind: service()[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
        assert asked == {"livenessProbe": "/livez", "readinessProbe": "/readyz"}

    def test_prometheus_by_the_pods_address_is_answered(self, settings: Settings) -> None:
        settings.ALLOWED_HOSTS = environment_of(service(), POD_IP="10.1.2.3")["ALLOWED_HOSTS"].split(",")
        annotations = manifest("Deployment", "onesource")["spec"]["template"]["metadata"]["annotations"]
        path, port = annotations["prometheus.io/path"], annotations["prometheus.io/port"]
        assert Client().get(path, headers={"host": f"10.1.2.3:{port}"}).status_code == 200

    def test_an_answer_under_way_is_waited_for(self) -> None:
        spec = manifest("Deployment", "onesource")["spec"]["template"]["spec"]
        leaving = int(service()["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert spec["terminationGracePeriodSeconds"] > leaving + ours.LLM_TIMEOUT_MS / 1000 + 5

    @pytest.mark.parametrize("name", ["onesource-backup", "onesource-trim"])
    def test_the_jobs_commands_are_ours(self, name: str) -> None:
        (container,) = containers(manifest("CronJob", name))
        python, manage, command, *arguments = container["command"]
        assert (python, manage) == ("python", "manage.py")
        if command not in get_commands():
            pytest.skip(f"there is no {command} yet")
        load_command_class("ops", command).create_parser("manage.py", command).parse_args(arguments)


class TestHardening:
    @pytest.mark.parametrize("name", PODS)
    def test_a_pod_may_do_as_little_as_it_can(self, name: str) -> None:
        check_hardening(dict(pods())[name]["spec"])

    @pytest.mark.parametrize("name", ["onesource", "onesource-backup", "onesource-trim"])
    def test_what_the_service_writes_to_can_be_written(self, name: str) -> None:
        spec = dict(pods())[name]["spec"]
        (container,) = spec["containers"]
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        empty = {each["name"] for each in spec["volumes"] if "emptyDir" in each}
        assert {mounts["/tmp"], mounts[environment_of(container)["VAR_DIR"]]} <= empty
        assert f"USER {spec['securityContext']['runAsUser']}:" in (DEPLOY / "Dockerfile").read_text()

    def test_nothing_unneeded_can_be_reached(self) -> None:
        allowed = {
            (one, other, port)
            for one in (*PODS, "prometheus", "ingress", "stranger")
            for other, port in (*OURS, ("redis", 6379), ("mongo", 27017), ("postgres", 5432), ("internet", 443))
            if (other != "internet" or one in PODS) and may_reach(one, other, port)
        }
        programs = ("onesource", "onesource-backup", "onesource-trim")
        assert allowed == {
            *((one, "redis", 6379) for one in (*programs, "redis")),
            *((one, "mongo", 27017) for one in (*programs, "mongo")),
            *((one, "postgres", 5432) for one in (*programs, "postgres-dump")),
            ("prometheus", "onesource", 8002),
            ("ingress", "onesource", 8001),
        }

    def test_every_pod_finds_names(self) -> None:
        found = manifest("NetworkPolicy", "dns")["spec"]
        assert found["podSelector"] == {}
        assert {(each["protocol"], each["port"]) for each in found["egress"][0]["ports"]} == {("UDP", 53), ("TCP", 53)}

    def test_no_real_secret_is_in_the_repository(self) -> None:
        kept = [file for file in DEPLOY.rglob("*") if file.is_file() and "secrets" not in file.parts]
        assert not [file for file in kept if re.search(r"[0-9a-f]{32}|[A-Za-z0-9+/]{43}=", file.read_text())]
        for secret in documents(K8S / "secrets.example.yaml"):
            for value in secret["stringData"].values():
                assert "REPLACE" in value


OUTSIDERS = {
    "prometheus": ("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "ingress": ("ingress-nginx", {}),
    "stranger": ("default", {"app": "redis"}),
}


def may_reach(one: str, other: str, port: int, among: Sequence[Manifest] = ()) -> bool:
    """Whether NetworkPolicies let a pod of `one` connect to a pod of `other`, as Kubernetes reads them."""
    policies = [each["spec"] for each in among or manifests() if each["kind"] == "NetworkPolicy"]
    leaves = _lets(policies, one, "Egress", "egress", "to", other, port)
    return leaves and _lets(policies, other, "Ingress", "ingress", "from", one, port)


def _lets(policies: list[Manifest], pod: str, kind: str, rules: str, side: str, peer: str, port: int) -> bool:
    if pod in OUTSIDERS or pod == "internet":
        return True  # their own policies are not ours
    mine = [each for each in policies if kind in each["policyTypes"] and _selects(each["podSelector"], {"app": pod})]
    return not mine or any(
        port in [each["port"] for each in rule["ports"]] and any(_is(selector, peer) for selector in rule[side])
        for policy in mine
        for rule in policy.get(rules, [])
    )


def _is(selector: dict[str, Any], peer: str) -> bool:
    namespace, labels = OUTSIDERS.get(peer, ("onesource", {"app": peer}))
    if peer == "internet":
        return "ipBlock" in selector
    if "namespaceSelector" in selector:
        if not _selects(selector["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != "onesource":
        return False
    return _selects(selector.get("podSelector", {}), labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


class TestAtOneWithEachOther:
    @pytest.mark.parametrize("name", PODS)
    def test_every_mount_has_a_volume_and_every_volume_something_in_it(self, name: str) -> None:
        spec = dict(pods())[name]["spec"]
        volumes = {each["name"]: each for each in spec.get("volumes", [])}
        claimed = {"data"} if name in ("mongo", "postgres") else set()  # from volumeClaimTemplates
        used = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert used == set(volumes) | claimed
        there = {(each["kind"], each["metadata"]["name"]) for each in manifests()}
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there

    def test_every_secret_that_is_used_is_made(self, tmp_path: Path) -> None:
        made = make_secrets("k8s", tmp_path)
        keys = {folder.name: {file.name for file in folder.iterdir()} for folder in made.iterdir()}
        example = {
            each["metadata"]["name"]: set(each["stringData"]) for each in documents(K8S / "secrets.example.yaml")
        }
        assert keys == example
        for _, template in pods():
            for volume in template["spec"].get("volumes", []):
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in keys
                for source in volume.get("projected", {}).get("sources", []):
                    assert {item["key"] for item in source["secret"]["items"]} <= keys[source["secret"]["name"]]
            for container in template["spec"]["containers"]:
                for variable in container.get("env", []):
                    wanted = variable.get("valueFrom", {}).get("secretKeyRef")
                    if wanted and not wanted.get("optional"):
                        assert wanted["key"] in keys[wanted["name"]]
                    if variable["name"].endswith("_FILE"):
                        name, key = variable["value"].removeprefix("/run/secrets/").split("/")
                        assert key in keys[name]

    def test_everything_that_selects_pods_selects_some(self) -> None:
        labels = [template["metadata"]["labels"] for _, template in pods()]
        for each in manifests():
            selector = {"Service": {"matchLabels": each.get("spec", {}).get("selector")}}.get(
                each["kind"], each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
            )
            if selector:
                assert any(_selects(selector, one) for one in labels), each["metadata"]["name"]

    def test_mongo_is_a_replica_set_that_the_service_knows(self, tmp_path: Path) -> None:
        url = (make_secrets("k8s", tmp_path) / "onesource" / "mongo_url").read_text()
        members = url.partition("@")[2].partition("/")[0]
        setup = next(each for each in containers(manifest("StatefulSet", "mongo")) if each["name"] == "setup")
        assert environment_of(setup)["MEMBERS"] == members
        spec = manifest("StatefulSet", "mongo")["spec"]
        assert members.split(",") == [f"mongo-{n}.{spec['serviceName']}:27017" for n in range(spec["replicas"])]
        assert "replicaSet=rs0" in url
        assert "--replSet rs0" in (BASE / "mongo" / "start.sh").read_text()

    def test_redis_has_room_to_copy_what_it_holds(self) -> None:
        config = dict(
            line.split(maxsplit=1)
            for line in (BASE / "redis" / "redis.conf").read_text().splitlines()
            if line and not line.startswith("#")
        )
        (container,) = containers(manifest("Deployment", "redis"))
        assert size(config["maxmemory"]) <= size(container["resources"]["limits"]["memory"]) / 2
        assert (config["appendonly"], config["maxmemory-policy"]) == ("yes", "noeviction")
        assert manifest("Deployment", "redis")["spec"]["strategy"] == {"type": "Recreate"}


class TestStayingUp:
    def test_a_rollout_takes_no_pod_away_first(self) -> None:
        rolling = manifest("Deployment", "onesource")["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxUnavailable": 0, "maxSurge": 1}

    def test_there_are_always_two_and_one_stays_in_a_drain(self) -> None:
        scaler = manifest("HorizontalPodAutoscaler", "onesource")["spec"]
        assert scaler["minReplicas"] >= 2
        assert scaler["scaleTargetRef"]["name"] == "onesource"
        assert "replicas" not in manifest("Deployment", "onesource")["spec"], "applying again would undo the scaler"
        assert manifest("PodDisruptionBudget", "onesource")["spec"]["minAvailable"] == 1

    def test_pods_share_one_database_or_do_not_start(self) -> None:
        """A secret without its address leaves the file missing, and the service refuses to start."""
        scaler = manifest("HorizontalPodAutoscaler", "onesource")["spec"]
        assert environment_of(service())["REPLICAS"] == str(scaler["maxReplicas"])
        for kind, name in (("Deployment", "onesource"), ("CronJob", "onesource-backup"), ("CronJob", "onesource-trim")):
            (container,) = containers(manifest(kind, name))
            assert environment_of(container)["DATABASE_URL_FILE"] == "/run/secrets/onesource/database_url"

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"DATABASE_URL_FILE": "/nowhere"}, "onesource: DATABASE_URL is not usable"),
            ({"DATABASE_URL_FILE": None}, "CommandError: REPLICAS=6 needs a database that all of them share"),
            ({"DATABASE_URL_FILE": None, "DATABASE_URL": "sqlite:////tmp/shared"}, "CommandError: REPLICAS=6 needs"),
        ],
    )
    def test_without_it_the_service_does_not_start(
        self, tmp_path: Path, change: dict[str, str | None], problem: str
    ) -> None:
        secrets = make_secrets("k8s", tmp_path)
        variables = environment_of(service(), POD_IP="10.1.2.3")
        variables = {name: value.replace("/run/secrets", str(secrets)) for name, value in variables.items()}
        variables |= {"VAR_DIR": str(tmp_path / "var")} | {name: str(value) for name, value in change.items() if value}
        variables = {name: value for name, value in variables.items() if change.get(name, "") is not None}
        done = subprocess.run(
            [sys.executable, "manage.py", "serve"], cwd=ROOT, env={"PATH": os.environ["PATH"], **variables},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2
        assert problem in done.stderr

    def test_pods_are_spread(self) -> None:
        spread = pod_template(manifest("Deployment", "onesource"))["spec"]["topologySpreadConstraints"]  # type: ignore[index]
        assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}

    @pytest.mark.parametrize(
        ("name", "words"),
        [("onesource-backup", "backup --to /backups --keep 14"), ("onesource-trim", "trim --expired --apply")],
    )
    def test_what_runs_by_itself(self, name: str, words: str) -> None:
        job = manifest("CronJob", name)
        (container,) = containers(job)
        assert container["command"] == ["python", "manage.py", *words.split()]
        assert job["spec"]["concurrencyPolicy"] == "Forbid"

    def test_backups_are_kept_when_the_pod_is_gone(self) -> None:
        spec = pod_template(manifest("CronJob", "onesource-backup"))["spec"]  # type: ignore[index]
        assert {"name": "backups", "mountPath": "/backups"} in spec["containers"][0]["volumeMounts"]
        claims = [
            each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each
        ]
        assert claims == ["onesource-backups"]
