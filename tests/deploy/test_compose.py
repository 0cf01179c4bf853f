"""compose.yaml and the secrets it needs: there is no container engine in CI, so its parts are held together here."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import BASE, DEPLOY, ROOT, documents, make_secrets

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def secrets_of(service: str) -> dict[str, str]:
    """Return the service's secrets: the name in the container, and in the file."""
    listed = [each if isinstance(each, dict) else {"source": each} for each in SERVICES[service].get("secrets", [])]
    return {each.get("target", each["source"]): each["source"] for each in listed}


class TestCompose:
    def test_it_is_the_service_with_both_stores_and_the_database(self) -> None:
        assert set(SERVICES) == {"onesource", "redis", "mongo", "mongo-setup", "postgres"}

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_whatever_a_service_names_is_there(self, name: str) -> None:
        service = SERVICES[name]
        assert set(secrets_of(name).values()) <= set(COMPOSE["secrets"])
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (DEPLOY / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()

    @pytest.mark.parametrize("name", sorted(SERVICES))
    def test_a_container_may_do_as_little_as_it_can(self, name: str) -> None:
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":[0-9][\w.-]*$", service["image"]), "an image has a version"

    @pytest.mark.parametrize("name", ["onesource", "redis", "mongo", "postgres"])
    def test_each_is_asked_how_it_is(self, name: str) -> None:
        assert SERVICES[name]["healthcheck"]["test"]

    def test_the_images_are_those_of_the_cluster(self) -> None:
        (kustomization,) = documents(BASE / "kustomization.yaml")
        assert {service["image"] for service in SERVICES.values()} == {
            f"{image['name']}:{image['newTag']}" for image in kustomization["images"]
        }

    def test_it_writes_to_both_stores_and_is_reached_from_this_machine_alone(self) -> None:
        assert SERVICES["onesource"]["environment"]["CONV_DUAL_WRITE"] == "${CONV_DUAL_WRITE:-1}"
        assert [port for service in SERVICES.values() for port in service.get("ports", [])] == ["127.0.0.1:8001:8001"]

    def test_redis_has_the_runbooks_name(self) -> None:
        assert SERVICES["redis"]["networks"]["default"]["aliases"] == ["redis-service"]

    def test_mongo_is_set_up_on_its_own_loopback(self) -> None:
        setup = SERVICES["mongo-setup"]
        assert setup["network_mode"] == "service:mongo"
        assert setup["environment"]["MEMBERS"] == "mongo:27017"

    def test_the_service_starts_with_its_variables(self, tmp_path: Path) -> None:
        made = make_secrets("compose", tmp_path)
        variables = {
            name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value))
            for name, value in SERVICES["onesource"]["environment"].items()
        }
        for name, source in secrets_of("onesource").items():
            file = made / Path(COMPOSE["secrets"][source]["file"]).relative_to("secrets/compose")
            variables = {each: value.replace(f"/run/secrets/{name}", str(file)) for each, value in variables.items()}
        code = (
            "from onesource import settings as s; print(s.EMBEDDED, s.CONV_DUAL_WRITE, s.ALLOWED_HOSTS[2], "
            "s.DATABASES['default']['HOST'], list(s.CHAT_KEYS), s.ADMIN_OTP, s.OIDC_ISSUER == '')"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PATH": os.environ["PATH"], **variables},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert output == "False True [::1] postgres ['1'] True True\n"


class TestMakeSecrets:
    def test_compose_finds_every_file(self, tmp_path: Path) -> None:
        make_secrets("compose", tmp_path / "secrets")
        assert not [each["file"] for each in COMPOSE["secrets"].values() if not (tmp_path / each["file"]).is_file()]

    def test_what_a_containers_user_reads_it_can_read_and_nobody_else_here(self, tmp_path: Path) -> None:
        made = make_secrets("compose", tmp_path / "secrets")
        assert made.stat().st_mode & 0o077 == made.parent.stat().st_mode & 0o077 == 0
        assert {file.stat().st_mode & 0o777 for file in made.rglob("*") if file.is_file()} == {0o444}
        made = make_secrets("k8s", tmp_path / "secrets")
        assert {file.stat().st_mode & 0o777 for file in made.rglob("*") if file.is_file()} == {0o400}

    def test_run_again_it_changes_nothing(self, tmp_path: Path) -> None:
        before = {file: file.read_text() for file in make_secrets("k8s", tmp_path).rglob("*") if file.is_file()}
        after = {file: file.read_text() for file in make_secrets("k8s", tmp_path).rglob("*") if file.is_file()}
        assert before == after

    def test_two_are_never_the_same(self, tmp_path: Path) -> None:
        passwords = [
            file.read_text()
            for kind in ("compose", "k8s")
            for file in make_secrets(kind, tmp_path).rglob("*")
            if file.is_file()
        ]
        twice = 2  # what the sentinels ask for is in Redis' secret and in the service's
        assert len(passwords) - twice == len(set(passwords)) == 36
        assert min(len(each) for each in passwords) >= 48

    def test_git_ignores_them(self) -> None:
        assert (DEPLOY / ".gitignore").read_text() == "secrets/\n"

    @pytest.mark.parametrize("arguments", [[], ["elsewhere"]])
    def test_it_says_how_it_is_used(self, arguments: list[str]) -> None:
        done = subprocess.run(["sh", str(DEPLOY / "make-secrets"), *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "compose|k8s" in done.stderr


@pytest.mark.parametrize("script", ["redis-cli", "make-secrets", "k8s/base/redis/start.sh", "k8s/base/mongo/start.sh",
                                    "k8s/overlays/sentinel/follow.sh", "k8s/overlays/sentinel/sentinel.sh",
                                    "k8s/overlays/cluster/create.sh",
                                    "k8s/base/mongo/setup.sh", "k8s/base/postgres/setup.sh"])  # fmt: skip
def test_every_script_is_one_that_a_plain_shell_reads(script: str) -> None:
    assert (DEPLOY / script).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", str(DEPLOY / script)], check=True)
