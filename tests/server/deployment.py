"""A service of two workers with stores and a `default` of its own, which a test can kill, empty and freeze."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.faults.service import PATIENCE, ROOT, Service
from tests.servers import MongoServer, RedisServer


class Deployment:
    """Its operator is on another machine: what VAR_DIR has there is of no use to the service, and nothing is known
    there of what the service has in its own."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self.default = home / "default.sqlite3"
        self.redis, self.mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
        self.service = Service(
            home / "service", REDIS_URL=self.redis.url, MONGO_URL=self.mongo.url, CONV_DUAL_WRITE="1",
            WEB_CONCURRENCY="2", DATABASE_URL=f"sqlite:///{self.default}", **variables,
        )  # fmt: skip

    def start(self) -> Self:
        self.redis.start()
        self.mongo.start()
        self.service.start().wait()
        return self

    def stop(self) -> None:
        self.service.stop()
        self.redis.kill()
        self.mongo.kill()

    def manage(self, *words: str, default: Path | None = None) -> tuple[int, Any]:
        """Return the exit code and the report of a command of the operator."""
        environment = {"VAR_DIR": str(self.home / "operator"), "DATABASE_URL": f"sqlite:///{default or self.default}"}
        done = subprocess.run(
            [sys.executable, "manage.py", *words, "--json"], env=self.service.environment | environment, cwd=ROOT,
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "null")
