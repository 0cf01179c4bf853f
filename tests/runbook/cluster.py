"""The deployment of deploy/k8s as processes of this machine: its Redis, a Mongo, the service behind a port that stays.

What the manifests say of the service's and the jobs' variables holds here too; only addresses and folders differ.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.deploy.deployed_postgres import DeployedPostgres
from tests.deploy.deployed_redis import DeployedRedis
from tests.deploy.files import DEPLOY, containers, environment_of, manifest
from tests.faults.proxy import Proxy
from tests.faults.service import ROOT, Service
from tests.servers import MongoServer, eventually

BIN = Path(__file__).parent / "bin"
_DRAIN_SECONDS = 5.0  # as the pod's preStop has it
_OUTSIDE = ("VAR_DIR", "PORT", "MANAGEMENT_PORT", "BIND", "ALLOWED_HOSTS")  # where a pod runs, which is different here


class Cluster:
    """Started with one pod of the service. It has these variables beside the manifest's."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self.redis = DeployedRedis(home / "redis", "--maxmemory", "64mb")
        self.mongo = MongoServer(home / "mongo")
        self.postgres = DeployedPostgres()
        self.front = Proxy(0)
        self.variables = _variables_of("Deployment", "onesource") | {"CHAT_AUTH": "open"} | variables
        self.jobs: dict[str, tuple[int, str]] = {}
        """Every job's exit code and log."""
        self.backups = home / "backups"
        self.desk = home / "desk"
        """Where the operator's shell is: in it the checkout's deploy/."""
        self._addresses = {
            "MONGO_URL": self.mongo.url,
            "REDIS_URL": self.redis.url_of("onesource"),
            "DATABASE_URL": self.postgres.url,
        }
        self._names = {"onesource": 0, "redis": 1}
        self._dns = {"STAND_IN_REDIS_CLI": shutil.which("redis-cli") or "", "STAND_IN_REDIS_PORT": str(self.redis.port)}
        self._pod: Service | None = None
        self._wanted = 0  # the number of the newest rollout
        self._rolling = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._draining = ThreadPoolExecutor(thread_name_prefix="drain")
        self._rollout: Future[None] | None = None

    def start(self) -> "Cluster":
        self.redis.start()
        self.mongo.start()
        self.postgres.start()
        self._replace(0)
        self.front.start()
        self.desk.mkdir()
        (self.desk / "deploy").symlink_to(DEPLOY)
        (self.home / ".local" / "bin").mkdir(parents=True)
        (self.home / ".local" / "bin" / "kubectl-restart").symlink_to(DEPLOY / "kubectl-restart")
        (self.home / ".curlrc").write_text(
            f'silent\nshow-error\nconnect-to = "localhost:8001:127.0.0.1:{self.front.port}"\n'
        )
        return self

    def stop(self) -> None:
        self._wanted += 1  # a running rollout is cancelled
        self._rolling.shutdown()
        self._draining.shutdown()
        if self._pod:
            self._pod.stop()
        self.front.stop()
        self.mongo.kill()
        self.redis.kill()
        self.postgres.remove()

    @property
    def pod(self) -> Service:
        assert self._pod
        return self._pod

    def pod_name(self, app: str) -> str:
        """Return the name of the app's only pod; each new one has another."""
        return f"{app}-6f7d9c5b44-{self._names[app]:05}"

    def set_variables(self, variables: dict[str, str]) -> bool:
        """Set these variables of the service; return whether any was new, which begins a rollout."""
        if variables.items() <= self.variables.items():
            return False
        self.variables |= variables
        self.roll()
        return True

    def roll(self) -> None:
        """Begin to replace the pod without failing a request; a running rollout is cancelled."""
        self._wanted += 1
        self._rollout = self._rolling.submit(self._replace, self._wanted)

    def wait_for_rollout(self) -> None:
        if self._rollout:
            self._rollout.result()

    def _replace(self, number: int) -> None:
        """Serve from a new pod once it is ready, as maxUnavailable 0 does, if no later rollout has begun."""
        self._names["onesource"] += 1
        new = Service(self.home / self.pod_name("onesource"), **self.variables, **self._addresses).start()
        try:
            eventually(lambda: _is_ready(new) or self._wanted != number, f"the pod is not ready: see {new.log}", 60)
        except AssertionError:
            new.stop()
            raise
        if self._wanted != number:
            new.stop()
            return
        old, self._pod = self._pod, new
        self.front.redirect(new.port)
        if old:
            self._draining.submit(self._drain, old)

    def _drain(self, pod: Service) -> None:
        """End the pod when its clients have gone elsewhere, or after as long as its preStop would wait."""
        with suppress(AssertionError):
            eventually(lambda: not self.front.connections_to(pod.port), "clients stay", _DRAIN_SECONDS)
        pod.stop()

    def restart_redis(self) -> None:
        self.redis.stop()
        self._names["redis"] += 1
        self.redis.start()

    def restart_mongo(self) -> None:
        self.mongo.stop()
        self.mongo.start()

    def answers(self) -> bool:
        """Return whether the service's pod is ready: a store that answers is enough for that."""
        return _is_ready(self.pod)

    def run_job(self, name: str, command: list[str]) -> None:
        """Run the command as the backup's CronJob would, to its end."""
        words = [word.replace("/backups", str(self.backups)) for word in command]
        self.backups.mkdir(exist_ok=True)
        environment = self.pod_environment() | _variables_of("CronJob", "onesource-backup")
        environment |= {"REDIS_URL": self.redis.url_of("onesource-jobs"), "VAR_DIR": str(self.home / "job")}
        done = subprocess.run(words, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)  # fmt: skip
        self.jobs[name] = (done.returncode, done.stdout.replace(str(self.backups), "/backups"))

    def pod_environment(self) -> dict[str, str]:
        """Return the variables of the service's pod: its python, its redis-cli and its settings."""
        path = f"{DEPLOY}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return self.pod.environment | self._dns | {"PATH": path, "REDIS_CLI": str(BIN / "redis-cli")}

    def desk_environment(self) -> dict[str, str]:
        """Return the variables of an operator's shell.

        `redis-cli` is that of Redis' own pod, where the operators' password is set; curl, the real one, finds the
        service's port behind localhost:8001.
        """
        return self._dns | {
            "PATH": self.desk_path,
            "HOME": str(self.home),
            "CURL_HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "REDISCLI_AUTH": self.redis.password("operator"),
        }

    @property
    def desk_path(self) -> str:
        return f"{BIN}:{self.home}/.local/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"


def _is_ready(pod: Service) -> bool:
    try:
        return pod.request("GET", "/readyz")[0] == 200
    except OSError:
        return False


def _variables_of(kind: str, name: str) -> dict[str, str]:
    """Return the plain variables of its container, except those that depend on where it runs."""
    (container,) = containers(manifest(kind, name))
    variables = environment_of(container)
    return {name: value for name, value in variables.items() if not (name in _OUTSIDE or name.endswith("_FILE"))}
