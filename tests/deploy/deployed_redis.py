"""Redis as the deployment starts it: its configuration, its users and their passwords."""

import os
import shutil
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.deploy.files import BASE, make_secrets
from tests.servers import RedisServer, redis_binary


class DeployedRedis(RedisServer):
    """Redis as the deployment starts it, on a port and in a folder of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self.options = options
        self.secrets = make_secrets("k8s", directory / "secrets")
        self.config = directory / "config"
        shutil.copytree(BASE / "redis", self.config)
        with (self.config / "users.acl").open("a") as users:
            users.write("user tests on nopass ~* &* +@all\n")  # for tests that look at the data directly

    def command(self) -> list[str]:
        variables = {
            "PATH": f"{Path(redis_binary()).parent}:{os.environ['PATH']}",
            "CONFIG": str(self.config),
            "SECRETS": str(self.secrets / "redis"),
            "USERS": str(self.directory / "users.acl"),
            "DATA": str(self.directory),
        }
        return ["env", *(f"{name}={value}" for name, value in variables.items()), "sh", str(self.config / "start.sh"),
                "--port", str(self.port), "--bind", "127.0.0.1", *self.options]  # fmt: skip

    def client(self) -> Redis:
        return self.client_of("tests", "any")

    def client_of(self, user: str, password: str) -> Redis:
        return Redis(port=self.port, username=user, password=password, protocol=2, socket_timeout=5,
                     retry=Retry(NoBackoff(), 0))  # fmt: skip

    def user(self, name: str) -> Redis:
        return self.client_of(name, self.password({"default": "operator"}.get(name, name)))

    def password(self, name: str) -> str:
        return (self.secrets / "redis" / f"{name}_password").read_text()

    def url_of(self, secret: str) -> str:
        """Return the URL that the service is given, with the host of this machine."""
        return (self.secrets / secret / "redis_url").read_text().replace(
            "redis-service:6379", f"127.0.0.1:{self.port}"
        )  # fmt: skip
