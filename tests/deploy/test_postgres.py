"""`default` on PostgreSQL, in a server that is started with the deployment's own files, under real services."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests import environment
from tests.builders import a_session
from tests.deploy.deployed_postgres import DeployedPostgres, binaries
from tests.deploy.files import containers, environment_of, manifest
from tests.faults.service import PATIENCE, ROOT, Service
from tests.servers import eventually

pytestmark = pytest.mark.skipif(not binaries() and not os.environ.get("CI"), reason="no PostgreSQL here")
CHANGES = {"CONV_DUAL_WRITE": "1", "CHAT_AUTH": "token", "CHAT_RATE": "100000/min"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[DeployedPostgres]:
    server = DeployedPostgres()
    try:
        yield server.start()
    finally:
        server.remove()


def a_service(home: Path, postgres: DeployedPostgres, **variables: str) -> Service:
    return Service(home, REDIS_URL=environment.REDIS.url, MONGO_URL=environment.MONGO.url, DATABASE_URL=postgres.url,
                   REPLICAS="2", **CHANGES | variables)  # fmt: skip


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, postgres: DeployedPostgres) -> Iterator[list[Service]]:
    """Two servers, each with a VAR_DIR of its own as in a pod, which start at the same moment on an empty database."""
    services = [a_service(tmp_path_factory.mktemp(name), postgres) for name in ("first", "second")]
    try:
        for each in services:
            each.start()
        for each in services:
            each.wait()
        yield services
    finally:
        for each in services:
            each.stop()


@pytest.fixture(autouse=True)
def _there(services: list[Service], postgres: DeployedPostgres) -> Iterator[None]:
    """Whatever a test stops is started again."""
    yield
    if not postgres.process:
        postgres.start()
    postgres.thaw()


def manage(service: Service, *words: str) -> tuple[int, Any]:
    """Return the exit code and the report of a command in the service's pod."""
    done = subprocess.run([sys.executable, "manage.py", *words, "--json"], env=service.environment, cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=PATIENCE)  # fmt: skip
    return done.returncode, json.loads(done.stdout or "null")


def asked(postgres: DeployedPostgres, query: str) -> list[tuple[Any, ...]]:
    with postgres.connect("onesource", "onesource", password(postgres)) as connection:
        return connection.execute(query.encode()).fetchall()


def password(postgres: DeployedPostgres) -> str:
    return (postgres.secrets / "postgres" / "onesource_password").read_text()


def request(service: Service, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request(method, f"/api/chat/{path}", json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "null")
    finally:
        connection.close()


def ask(service: Service, token: str, session: str) -> int:
    return request(service, "POST", "ask", token, {"question": "What is Redis?", "session_id": session})[0]


class TestTheService:
    def test_servers_that_start_at_once_migrate_it_once(
        self, services: list[Service], postgres: DeployedPostgres
    ) -> None:
        applied = asked(postgres, "SELECT app, name FROM django_migrations")
        assert len(applied) == len(set(applied)) > 20
        assert not [service.home for service in services if "migrate_failed" in service.log.read_text()]

    def test_a_token_of_one_pod_is_listed_and_revoked_in_another(self, services: list[Service]) -> None:
        first, second = services
        code, made = manage(first, "token", "create", "somebody")
        assert code == 0
        assert ask(second, made["token"], a_session()) == 200
        listed = {each["id"]: each["state"] for each in manage(second, "token", "list")[1]["tokens"]}
        assert listed[made["id"]] == "valid"
        code, done = manage(second, "token", "revoke", made["id"], "--reason", "a test")
        assert (code, done["missed"]) == (0, [])
        eventually(lambda: ask(first, made["token"], a_session()) == 401, "the token is not refused")

    def test_what_an_operator_did_in_a_pod_is_in_the_audit_log_of_all(
        self, services: list[Service], postgres: DeployedPostgres
    ) -> None:
        reason = a_session()
        assert manage(services[1], "token", "create", "somebody", "--reason", reason)[0] == 0
        query = f"SELECT action, outcome FROM ops_auditentry WHERE reason = '{reason}'"  # noqa: S608  (of ours)
        assert [action for action, _ in asked(postgres, query)] == ["token"]

    def test_a_deletion_is_in_the_ledger_of_all(self, services: list[Service], postgres: DeployedPostgres) -> None:
        _, made = manage(services[0], "token", "create", "somebody")
        session = a_session()
        assert ask(services[0], made["token"], session) == 200
        assert request(services[0], "DELETE", f"conversations/{session}/", made["token"])[0] == 204
        query = f"SELECT 1 FROM ops_deletion WHERE session = '{made['tenant']}:{session}'"  # noqa: S608  (of ours)
        eventually(lambda: asked(postgres, query), "it is not in the ledger", PATIENCE)

    def test_chat_goes_on_without_it_and_the_admin_when_it_is_back(
        self, services: list[Service], postgres: DeployedPostgres
    ) -> None:
        """Each thread keeps its connection for a minute: one that a restart has broken is not used again."""
        service = services[0]
        _, made = manage(service, "token", "create", "somebody")
        assert login(service) == 200
        postgres.stop()
        assert ask(service, made["token"], a_session()) == 200
        postgres.start()
        assert {login(service) for _ in range(10)} == {200}

    def test_a_frozen_one_is_not_waited_for_long(self, services: list[Service], postgres: DeployedPostgres) -> None:
        """An operator's command that needs it says so; no chat waits for it."""
        _, made = manage(services[0], "token", "create", "somebody")
        postgres.freeze()
        begun = time.monotonic()
        assert manage(services[0], "token", "create", "somebody")[0] == 2
        assert time.monotonic() - begun < 30  # the start of a command, on a busy machine, and two connections
        begun = time.monotonic()
        assert ask(services[0], made["token"], a_session()) == 200
        assert time.monotonic() - begun < 2


def login(service: Service) -> int:
    """Return the status of a failed login: it has asked the database."""
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=20) as client:
        page = client.get("/admin/login/")
        form = {"username": a_session(), "password": "wrong", "csrfmiddlewaretoken": page.cookies["csrftoken"]}
        return client.post("/admin/login/", data=form).status_code


class TestItsUser:
    """The service is logged in as a user who owns its database, and can do nothing else."""

    def test_nobody_comes_in_without_the_password(self, postgres: DeployedPostgres) -> None:
        for user, secret in (("onesource", "wrong"), ("onesource", ""), ("postgres", password(postgres)),
                             ("postgres", ""), ("nobody", "")):  # fmt: skip
            with pytest.raises(psycopg.OperationalError, match=r"password|no such user|role"):
                postgres.connect(user, "onesource", secret)

    def test_it_reaches_no_other_database(self, postgres: DeployedPostgres) -> None:
        for name in ("postgres", "template1"):
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                postgres.connect("onesource", name, password(postgres))

    @pytest.mark.parametrize(
        "statement",
        [
            "COPY (SELECT 1) TO PROGRAM 'true'", "COPY (SELECT 1) TO '/tmp/onesource'", "CREATE ROLE other SUPERUSER",
            "ALTER ROLE onesource SUPERUSER", "CREATE DATABASE other", "SELECT pg_read_file('PG_VERSION')",
            "SELECT rolpassword FROM pg_authid", "ALTER SYSTEM SET log_statement = 'all'", "SET ROLE postgres",
        ],
    )  # fmt: skip
    def test_what_is_dangerous_is_refused(self, postgres: DeployedPostgres, statement: str) -> None:
        with postgres.connect("onesource", "onesource", password(postgres)) as connection:
            connection.autocommit = True
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def run_job(postgres: DeployedPostgres, folder: Path, script: str) -> None:
    """Run a script as the CronJob runs its own, with this machine's places and server."""
    (container,) = containers(manifest("CronJob", "postgres-dump"))
    places = {"/dumps": str(folder), "/run/secrets/postgres": str(postgres.secrets / "postgres")}
    for given, place in places.items():
        script = script.replace(given, place)
    variables = environment_of(container) | {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port)}
    variables["PATH"] = f"{postgres.binaries}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", script], env=variables, check=True, capture_output=True, text=True)


def script_of_job() -> str:
    (container,) = containers(manifest("CronJob", "postgres-dump"))
    assert container["command"][:2] == ["sh", "-euc"]
    script: str = container["command"][2]
    return script


def script_of_restore() -> str:
    """Return what docs/operating.md has the job run to restore a dump."""
    found = re.search(r"^restore='(.+?)'$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_nightly_dump_is_restored(services: list[Service], postgres: DeployedPostgres, tmp_path: Path) -> None:
    """While the service runs, which then goes on with what was restored."""
    made = manage(services[0], "token", "create", "somebody")[1]["id"]
    run_job(postgres, tmp_path, script_of_job())
    assert asked(postgres, "DELETE FROM ops_issuedtoken RETURNING 1")
    run_job(postgres, tmp_path, script_of_restore())
    assert made in [each["id"] for each in manage(services[1], "token", "list")[1]["tokens"]]


def test_as_many_dumps_are_kept_as_backups(services: list[Service], postgres: DeployedPostgres, tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"default-202601{number + 1:02}T034700Z.dump").touch()
    (tmp_path / "another.dump").touch()
    run_job(postgres, tmp_path, script_of_job())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 15
    assert names[:2] == ["another.dump", "default-20260104T034700Z.dump"]
