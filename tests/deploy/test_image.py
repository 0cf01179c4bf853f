"""The image: there is no container engine in CI, so what its files say is held to what the project is."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from django.conf import settings

from tests.deploy.files import DEPLOY, ROOT

LIVES_UNDER = "/var/lib/onesource"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last_stage() -> list[tuple[str, str]]:
    every = instructions()
    start = max(number for number, (word, _) in enumerate(every) if word == "FROM")
    return every[start:]


def one(word: str) -> str:
    """Return the argument of the last stage's only such instruction."""
    (found,) = [argument for name, argument in last_stage() if name == word]
    return found


def copied() -> list[str]:
    """Return what is copied from the repository, by both stages."""
    found: list[str] = []
    for word, argument in instructions():
        words = [each for each in argument.split() if not each.startswith("--")]
        if word == "COPY" and "--from=" not in argument:
            found += words[:-1]
    return found


def sent(path: str) -> bool:
    """Whether .dockerignore lets the path into the build."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        tails = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        if any(fnmatch(each, pattern) or fnmatch(f"/{each}", pattern.replace("**", "*")) for each in tails):
            kept = line.startswith("!")
    return kept


class TestWhatIsInIt:
    def test_every_source_exists_and_reaches_the_build(self) -> None:
        assert copied()
        assert [source for source in copied() if (ROOT / source).exists() and sent(source)] == copied()

    @pytest.mark.parametrize(
        "path",
        [".git/config", ".venv/bin/python", "var/secret_key", "tests/conftest.py", "deploy/secrets/k8s/redis/keyfile",
         ".env", "ops/__pycache__/health.pyc", "conversations/stores/__pycache__/base.cpython-311.pyc"],
    )  # fmt: skip
    def test_what_is_no_part_of_the_service_is_not_sent(self, path: str) -> None:
        assert not sent(path)

    def test_all_of_the_service_is_sent(self) -> None:
        for package in ("onesource", "conversations", "ops", "page"):
            files = [file for file in (ROOT / package).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
            assert not [file for file in files if not sent(str(file.relative_to(ROOT)))]

    def test_what_is_copied_is_enough_to_run(self, tmp_path: Path) -> None:
        for source in copied():
            to = tmp_path / source
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, to)
        environment = {**os.environ, "VAR_DIR": str(tmp_path / "var"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(
            [sys.executable, "manage.py", "check"], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL
        )

    def test_the_locked_requirements_are_what_is_installed(self) -> None:
        """An image must be the same tomorrow. tests/unit/test_project.py compares the lock with the pins."""
        locks = ["requirements.lock", "requirements-models.lock", "requirements-traces.lock"]
        assert set(locks) <= set(copied())
        (install,) = [argument for word, argument in instructions() if word == "RUN" and "pip install" in argument]
        assert "--require-hashes" in install and all(f"-r /tmp/{lock}" in install for lock in locks)

    def test_redis_cli_is_in_it(self) -> None:
        assert any(word == "RUN" and "redis-tools" in argument for word, argument in last_stage())


class TestHowItRuns:
    def test_it_is_small_and_built_in_two_stages(self) -> None:
        bases = [argument.split()[0] for word, argument in instructions() if word == "FROM"]
        assert len(bases) == 2
        assert all(re.fullmatch(r"python:3\.11-slim(-\w+)?", base) for base in bases)
        installs = [argument for _, argument in instructions() if "apt-get install" in argument]
        assert all("--no-install-recommends" in each and "rm -rf /var/lib/apt/lists" in each for each in installs)
        assert not [word for word, _ in instructions() if word == "ADD"]

    def test_its_user_is_a_number_and_not_root(self) -> None:
        user = one("USER")
        assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", user), "Kubernetes cannot see that a name is not root"
        words = [word for word, _ in last_stage()]
        assert not set(words[words.index("USER") :]) & {"RUN", "COPY"}
        uid, gid = user.split(":")
        made = next(argument for _, argument in last_stage() if "install -d" in argument)
        assert f"-o {uid} -g {gid} {LIVES_UNDER}" in made
        assert f"VAR_DIR={LIVES_UNDER}" in one("ENV")

    def test_it_serves_on_the_port_of_the_runbook_and_the_management_port(self) -> None:
        assert one("EXPOSE") == f"{settings.PORT} {settings.MANAGEMENT_PORT}" == "8001 8002"
        assert json.loads(one("CMD")) == ["python", "manage.py", "serve"]

    def test_no_secret_is_built_in(self) -> None:
        variables = " ".join(argument for word, argument in instructions() if word in {"ENV", "ARG"})
        assert not re.search(r"SECRET|PASSWORD|TOKEN|KEY|REDIS_URL|MONGO_URL", variables)

    @pytest.mark.parametrize(("path", "well"), [("/livez", True), ("/elsewhere", False)])
    def test_its_health_is_asked_at_livez(self, answering: HTTPServer, path: str, well: bool) -> None:
        _, _, command = one("HEALTHCHECK").partition("CMD ")
        python, *arguments = json.loads(command)
        assert python == "python"
        answering.well_at = path  # type: ignore[attr-defined]
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"MANAGEMENT_PORT": str(answering.server_port)},
            capture_output=True,
            timeout=20,
        )
        assert (done.returncode == 0) is well


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    """A server that is well at one path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.send_response(200 if self.path == self.server.well_at else 404)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestRedisCli:
    """The wrapper that makes the runbook's `redis-cli -h redis-service ping` work in the container as written."""

    URL = "redis://onesource:pass@word@redis-service:6379/0"

    def run(self, tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
        """Return the arguments and the password that the real one gets."""
        real = tmp_path / "real"
        real.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\necho "auth=${REDISCLI_AUTH-}"\n')
        real.chmod(0o755)
        done = subprocess.run(
            ["sh", str(DEPLOY / "redis-cli"), *arguments], capture_output=True, text=True, check=True,
            env={"PATH": os.environ["PATH"], "REDIS_CLI": str(real), **environment},
        )  # fmt: skip
        return done.stdout.splitlines()

    def test_it_logs_in_as_the_service(self, tmp_path: Path) -> None:
        arguments = self.run(tmp_path, "-h", "redis-service", "ping", REDIS_URL=self.URL)
        assert arguments == ["--user", "onesource", "-h", "redis-service", "ping", "auth=pass@word"]

    def test_the_url_may_be_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "url").write_text(self.URL)
        arguments = self.run(tmp_path, "ping", REDIS_URL_FILE=str(tmp_path / "url"))
        assert arguments == ["--user", "onesource", "ping", "auth=pass@word"]

    def test_a_password_without_a_user_is_the_default_users(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "ping", REDIS_URL="redis://:word@here:6379/0") == ["ping", "auth=word"]

    @pytest.mark.parametrize("url", ["", "redis://here:6379/0"])
    def test_without_a_password_it_is_redis_cli(self, tmp_path: Path, url: str) -> None:
        assert self.run(tmp_path, "get", "a b", REDIS_URL=url) == ["get", "a b", "auth="]

    def test_whoever_logs_in_is_left_alone(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, "-a", "mine", "ping", REDIS_URL=self.URL) == ["-a", "mine", "ping", "auth="]
        arguments = self.run(tmp_path, "ping", REDIS_URL=self.URL, REDISCLI_AUTH="mine")
        assert arguments == ["ping", "auth=mine"]
