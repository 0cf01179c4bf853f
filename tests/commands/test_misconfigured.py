"""A store that is set up wrongly, as `status` and the start of `serve` show it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as configured
from pytest_django import Settings

from tests.certificates import Authority
from tests.commands.working import run, run_json
from tests.configured import LONG_SECRET
from tests.contract.test_misconfigured import WITHOUT_OURS, SecuredRedis
from tests.contract.test_tls import require_tls
from tests.servers import MongoServer, free_port, use_redis

EXPIRED = "Redis has a certificate that has expired: renew it there, or set the clock of this machine"


@pytest.fixture
def expired(tmp_path: Path) -> SecuredRedis:
    require_tls()
    authority = Authority(tmp_path / "authority")
    certificate = authority.certify("server", begins=-3, ends=-2)
    return SecuredRedis(tmp_path / "redis", authority, certificate, *WITHOUT_OURS)


def test_status_says_what_to_set_right(expired: SecuredRedis, settings: Settings) -> None:
    """And does not take the store for one that is merely out, or for an empty one."""
    try:
        expired.start()
        use_redis(settings, expired.over_tls())
        code, report = run_json("status")
        redis = report["stores"]["redis"]
        assert (code, redis["up"], redis["problem"], redis["conversations"]) == (1, False, EXPIRED, None)
        code, output = run("status")
        assert "MISCONFIGURED (ConnectionError)" in output
        assert output.splitlines()[-1].startswith(f"redis is misconfigured: {EXPIRED}")
    finally:
        expired.kill()


class SecuredMongo(MongoServer):
    def answers(self) -> bool:
        return self._listens()


@pytest.mark.parametrize(("begins", "ends", "options", "line"), [
    (-1, 1, "&tls=true&tlsCAFile={ca}", ""),
    (-1, 1, "&tls=true", "of an authority that is not known here: set tlsCAFile in MONGO_URL to the"),
    (-3, -2, "&tls=true&tlsCAFile={ca}", "MongoDB has a certificate that has expired: renew it there"),
    (-1, 1, "", "is reached by TLS alone: set tls=true in MONGO_URL"),
    (-1, 1, "&tls=true&tlsCAFile=/none.pem", "tlsCAFile in MONGO_URL is /none.pem, which cannot be read: No such file"),
])  # fmt: skip
def test_status_says_the_same_of_mongodb(begins: int, ends: int, options: str, line: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = map(str, authority.certify("server", begins=begins, ends=ends))
    server = SecuredMongo(tmp_path / "mongo", "--tls-cert-file", certificate, "--tls-key-file", key)
    try:
        server.start()
        given = options.format(ca=authority.certificate)
        url = f"mongodb://127.0.0.1:{server.port}/onesource?directConnection=true{given}"
        done = manage("status", "--json", VAR_DIR=str(tmp_path), REDIS_URL="redis://127.0.0.1:9/0", MONGO_URL=url)
        mongo = json.loads(done.stdout)["stores"]["mongo"]
        assert (mongo["up"], line in mongo["problem"], mongo["problem"] == "") == (not line, True, not line), mongo
        assert "Traceback" not in done.stderr
    finally:
        server.kill()


def manage(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("REDIS_URL", "MONGO_URL", "SECRET_KEY", "DATABASE_URL", "BIND", "CHAT_AUTH")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, str(configured.BASE_DIR / "manage.py"), *words],
        env=inherited | {"SECRET_KEY": LONG_SECRET, "LOG_FORMAT": "json"} | variables,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def serve(folder: Path, redis_url: str) -> subprocess.CompletedProcess[str]:
    ports = {"PORT": str(free_port()), "MANAGEMENT_PORT": str(free_port())}
    mongo = "mongodb://127.0.0.1:9/onesource"
    return manage("serve", VAR_DIR=str(folder), REDIS_URL=redis_url, MONGO_URL=mongo, **ports)


@pytest.mark.parametrize(("options", "line"), [
    ("?ssl_ca_certs=/none.pem", "ssl_ca_certs in REDIS_URL is /none.pem, which cannot be read: No such file"),
    ("?ssl_nonsense=1", "REDIS_URL is not usable: there is no option ssl_nonsense"),
    ("?ssl_keyfile=/none.key", "REDIS_URL is not usable: ssl_keyfile needs ssl_certfile beside it"),
])  # fmt: skip
def test_what_no_server_is_needed_to_see_stops_the_start(options: str, line: str, tmp_path: Path) -> None:
    done = serve(tmp_path, f"rediss://chat:of-chat@127.0.0.1:9/0{options}")
    assert done.returncode != 0
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert "of-chat" not in done.stderr
