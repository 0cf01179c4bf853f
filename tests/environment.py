"""Two real stores for each test process, given to Django before it reads its settings. TEST_REDIS says what its Redis
is: one `server`, where it is not set, a primary with replicas behind `sentinel`, or a `cluster`.

Loaded with `-p`, since pytest-django reads the settings before any conftest.py.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from tests import round_trips  # noqa: F401  # its listener must be there before Django's client is made
from tests.clusters import ClusterOfServers
from tests.configured import LONG_SECRET
from tests.sentinels import PASSWORD, Deployment
from tests.servers import MongoServer, RedisServer

_HOME = Path(tempfile.mkdtemp(prefix="onesource-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
KIND = os.environ.get("TEST_REDIS") or "server"


def _redis() -> RedisServer | Deployment | ClusterOfServers:
    """None of them is given another master while tests run: a server may answer late on a busy machine."""
    home = _HOME / "redis"
    if KIND == "sentinel":
        return Deployment(home, patience=60_000)
    if KIND == "cluster":
        return ClusterOfServers(home, "--cluster-node-timeout", "5000", "--cluster-replica-no-failover", "yes")
    assert KIND == "server", f"TEST_REDIS is {KIND}: use server, sentinel or cluster"
    return RedisServer(home)


REDIS = _redis()
MONGO = MongoServer(_HOME / "mongo")


def stop() -> None:
    REDIS.kill()
    MONGO.kill()


os.environ.update(
    REDIS_URL=REDIS.url,
    MONGO_URL=MONGO.url,
    SECRET_KEY=LONG_SECRET,
    CHAT_AUTH="open",
    VAR_DIR=str(_HOME),
    REDIS_SOCKET_TIMEOUT_MS="2000",
    REDIS_CONNECT_TIMEOUT_MS="2000",
    MONGO_TIMEOUT_MS="5000",
)
for _name in (
    "BACKUP_KEY_FILE",
    "CHAT_KEYS",
    "OIDC_ISSUER",
    "OIDC_AUDIENCE",
    "OIDC_JWKS_URL",
    "OIDC_TENANT_CLAIM",
    "OIDC_SCOPES_CLAIM",
    "ADMIN_OTP",
    "ADMIN_LOCKOUT_SECONDS",
    "CHAT_RATE",
    "CHAT_CONCURRENT",
    "TENANT_MAX_BYTES",
    "DATABASE_URL",
    "REPLICAS",
    "ANSWERER",
    "CONV_STORE_PRIMARY",
    "CONV_DUAL_WRITE",
    "MAX_BODY_BYTES",
    "PROMETHEUS_MULTIPROC_DIR",
    "REDIS_SENTINEL_PASSWORD",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "PYTHONDONTWRITEBYTECODE",  # each of the processes that tests start would compile the service anew
):
    os.environ.pop(_name, None)
if KIND == "sentinel":
    os.environ["REDIS_SENTINEL_PASSWORD"] = PASSWORD
