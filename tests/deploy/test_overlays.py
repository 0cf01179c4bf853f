"""The overlays with several Redis: valid, closed to who need not reach them, and at work with their own scripts."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import kubernetes_validate
import pytest
from pytest_django import Settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError
from redis.retry import Retry

from conversations.stores.redis.keys import tags
from conversations.stores.redis.turns import CacheStore
from tests.builders import a_session, a_turn
from tests.contract import test_stores
from tests.deploy.files import BASE, K8S, containers, environment_of, make_secrets, manifest, pods
from tests.deploy.files import built as built_of
from tests.deploy.test_kubernetes import VERSIONS, check_hardening, may_reach
from tests.servers import RedisServer, eventually, free_port, redis_binary, use_redis

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")

SETS = ("sentinel", "cluster")
PROGRAMS = ("onesource", "onesource-backup", "onesource-trim")
SERVERS = {"sentinel": 3, "cluster": 6}


@pytest.mark.parametrize("overlay", SETS)
class TestManifests:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_every_one_is_what_its_schema_says(self, overlay: str, version: str) -> None:
        for each in built_of(overlay):
            assert kubernetes_validate.validate(each, version, strict=True) == version

    def test_a_pod_may_do_as_little_as_it_can(self, overlay: str) -> None:
        for _, template in pods(built_of(overlay)):
            check_hardening(template["spec"])

    def test_only_redis_is_another(self, overlay: str) -> None:
        def names(of: str) -> set[tuple[str, str]]:
            return {(each["kind"], each["metadata"]["name"]) for each in built_of(of)}

        gone = names("single") - names(overlay)
        assert gone == {("Deployment", "redis"), ("PersistentVolumeClaim", "redis-data")}
        for each in built_of(overlay):
            assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "onesource"
            assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "onesource"
        images = {c["image"] for each in built_of(overlay) for c in containers(each)}
        assert images == {c["image"] for each in built_of("single") for c in containers(each)}

    def test_each_server_has_a_name_and_data_of_its_own_and_one_may_leave_at_a_time(self, overlay: str) -> None:
        spec = manifest("StatefulSet", "redis", built_of(overlay))["spec"]
        assert (spec["replicas"], spec["serviceName"]) == (SERVERS[overlay], "redis")
        assert [each["metadata"]["name"] for each in spec["volumeClaimTemplates"]] == ["data"]
        assert "strategy" not in spec
        assert manifest("Service", "redis", built_of(overlay))["spec"]["publishNotReadyAddresses"] is True
        assert manifest("PodDisruptionBudget", "redis", built_of(overlay))["spec"]["maxUnavailable"] == 1
        mounted = {m["name"] for c in spec["template"]["spec"]["containers"] for m in c["volumeMounts"]}
        assert mounted == {"data"} | {each["name"] for each in spec["template"]["spec"]["volumes"]}

    def test_there_are_always_two_of_the_service(self, overlay: str) -> None:
        assert manifest("HorizontalPodAutoscaler", "onesource", built_of(overlay))["spec"]["minReplicas"] >= 2

    def test_nothing_unneeded_can_be_reached(self, overlay: str) -> None:
        reach = partial(may_reach, among=built_of(overlay))
        others = (*PROGRAMS, "redis", "redis-cluster", "mongo", "postgres", "ingress", "stranger")
        ports = {port: {one for one in others if reach(one, "redis", port)} for port in (6379, 16379, 26379)}
        assert (
            ports
            == {
                "sentinel": {6379: {*PROGRAMS, "redis"}, 16379: set(), 26379: {*PROGRAMS, "redis"}},
                "cluster": {6379: {*PROGRAMS, "redis", "redis-cluster"}, 16379: {"redis"}, 26379: set()},
            }[overlay]
        )
        assert not [one for one in ("mongo", "postgres", "onesource") if reach("redis-cluster", one, 27017)]

    def test_the_service_is_given_the_addresses_of_these_servers(self, overlay: str, tmp_path: Path) -> None:
        make_secrets("k8s", tmp_path)
        made = make_secrets("k8s", tmp_path, overlay)
        spec = manifest("StatefulSet", "redis", built_of(overlay))["spec"]
        port = {"sentinel": 26379, "cluster": 6379}[overlay]
        hosts = ",".join(f"redis-{n}.{spec['serviceName']}:{port}" for n in range(spec["replicas"]))
        for secret, user in (("onesource", "onesource"), ("onesource-jobs", "jobs")):
            url = (made / secret / "redis_url").read_text()
            password = (made / "redis" / f"{user}_password").read_text()
            end = "/mymaster/0" if overlay == "sentinel" else ""
            assert url == f"redis+{overlay}://{user}:{password}@{hosts}{end}"
        back = (make_secrets("k8s", tmp_path, "single") / "onesource" / "redis_url").read_text()
        assert back.endswith("@redis-service:6379/0")

    def test_every_password_that_a_file_names_is_made(self, overlay: str, tmp_path: Path) -> None:
        made = {file.name for file in (make_secrets("k8s", tmp_path, overlay) / "redis").iterdir()}
        text = "".join(manifest("ConfigMap", "redis-config", built_of(overlay))["data"].values())
        assert set(re.findall(r"[{/](\w+_password)\b", text)) <= made


def test_the_service_and_its_jobs_have_the_sentinels_password() -> None:
    for kind, name in (("Deployment", "onesource"), ("CronJob", "onesource-backup"), ("CronJob", "onesource-trim")):
        (container,) = containers(manifest(kind, name, built_of("sentinel")))
        assert environment_of(container)["REDIS_SENTINEL_PASSWORD_FILE"].endswith("/redis_sentinel_password")
    for name, template in pods(built_of("sentinel")):
        if name in PROGRAMS[1:]:
            (secrets,) = [each for each in template["spec"]["volumes"] if each["name"] == "secrets"]
            keys = {each["secret"]["name"]: each["secret"]["items"] for each in secrets["projected"]["sources"]}
            assert "redis_sentinel_password" in {item["key"] for item in keys["onesource"]}


class Pod(RedisServer):
    """One process of a pod, with an address of its own, as Kubernetes gives one, and the configuration's scripts."""

    script = "start.sh"

    def __init__(self, stack: "Stack", number: int) -> None:
        super().__init__(stack.home / f"redis-{number}")
        self.stack, self.host, self.port = stack, stack.hosts[number], stack.port

    def command(self) -> list[str]:
        variables = {
            "PATH": f"{Path(redis_binary()).parent}:{os.environ['PATH']}", "ME": self.host,
            "NODES": " ".join(self.stack.hosts), "REDIS_PORT": str(self.stack.port),
            "SENTINEL_PORT": str(self.stack.sentinel_port), "CONFIG": str(self.stack.config),
            "SECRETS": str(self.stack.secrets / "redis"), "USERS": str(self.directory / "users.acl"),
            "DATA": str(self.directory),
        }  # fmt: skip
        return ["env", *(f"{name}={value}" for name, value in variables.items()), "sh",
                str(self.stack.config / self.script), "--bind", self.host, "--port", str(self.port),
                *self.options_of()]  # fmt: skip

    def options_of(self) -> list[str]:
        return []

    def client(self) -> Redis:
        return Redis(self.host, self.port, password=self.stack.password("operator"), socket_timeout=5,
                     decode_responses=True, retry=Retry(NoBackoff(), 0))  # fmt: skip


class FollowingPod(Pod):
    script = "follow.sh"


class SentinelPod(Pod):
    script = "sentinel.sh"

    def __init__(self, stack: "Stack", number: int) -> None:
        super().__init__(stack, number)
        self.port = stack.sentinel_port

    def client(self) -> Redis:
        return Redis(self.host, self.port, password=self.stack.password("sentinels"), socket_timeout=5,
                     decode_responses=True, retry=Retry(NoBackoff(), 0))  # fmt: skip


class ClusterPod(Pod):
    def options_of(self) -> list[str]:
        (container,) = containers(manifest("StatefulSet", "redis", built_of("cluster")))
        words = container["command"][2:]
        places = {"/data/nodes.conf": str(self.directory / "nodes.conf"), "$(POD_NAME).redis": "localhost"}
        # A pod has one address: here each server has to be told which of this machine's it calls from.
        return [*(places.get(word, word) for word in words), "--bind-source-addr", self.host]


class Stack:
    """The servers of an overlay, on loopback addresses of their own and the same ports, as in pods."""

    def __init__(self, home: Path, overlay: str, first: int) -> None:
        self.home, self.config = home, home / "config"
        self.sentinel_port = free_port()
        self.port = next(port for port in iter(free_port, 0) if port < 55_536)  # a cluster's bus is 10,000 above it
        self.hosts = [f"127.0.{os.getpid() % 250}.{first + n}" for n in range(SERVERS[overlay])]
        self.secrets = make_secrets("k8s", home / "secrets", overlay)
        shutil.copytree(BASE / "redis", self.config)
        for folder in (K8S / "redis-set", K8S / "overlays" / overlay):
            for file in folder.iterdir():
                if file.suffix != ".yaml":
                    shutil.copy(file, self.config)
        self.pods: list[Pod] = []

    def start(self, *kinds: type[Pod]) -> "Stack":
        self.pods = [kind(self, number) for kind in kinds for number in range(len(self.hosts))]
        for pod in self.pods:
            pod.start()
        return self

    def kill(self) -> None:
        for pod in reversed(self.pods):
            pod.kill()

    def password(self, name: str) -> str:
        return (self.secrets / "redis" / f"{name}_password").read_text()

    def url(self) -> str:
        """Return what the service is given, with the addresses of this machine."""
        text = (self.secrets / "onesource" / "redis_url").read_text()
        for number, host in enumerate(self.hosts):
            text = text.replace(f"redis-{number}.redis:", f"{host}:")
        return text.replace(":26379", f":{self.sentinel_port}").replace(":6379", f":{self.port}")


class TestSentinels:
    @pytest.fixture
    def stack(self, tmp_path: Path) -> Iterator[Stack]:
        stack = Stack(tmp_path, "sentinel", 11)
        try:
            yield stack.start(FollowingPod, SentinelPod)
        finally:
            stack.kill()

    def primary(self, stack: Stack) -> str:
        with stack.pods[-1].client() as sentinel:
            return str(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[0])

    def is_whole(self, stack: Stack) -> bool:
        """Whether the primary has two replicas, and each sentinel knows all."""
        try:
            with Redis(self.primary(stack), stack.port, password=stack.password("operator"), socket_timeout=2,
                       retry=Retry(NoBackoff(), 0)) as client:  # fmt: skip
                replicas = client.info("replication")["min_slaves_good_slaves"]  # type: ignore[index]
            for pod in stack.pods[3:]:
                with pod.client() as sentinel:
                    known = sentinel.execute_command("SENTINEL", "MASTER", "mymaster")
                    if (int(known["num-slaves"]), int(known["num-other-sentinels"])) != (2, 2):
                        return False
        except RedisError:
            return False
        return int(replicas) == 2

    def test_a_turn_survives_its_server_and_the_old_one_comes_back_as_a_replica(
        self, stack: Stack, settings: Settings
    ) -> None:
        eventually(lambda: self.is_whole(stack), "they are not whole", 30)
        settings.REDIS_SENTINEL_PASSWORD = stack.password("sentinels")
        use_redis(settings, stack.url())
        store, session = CacheStore("redis", test_stores.LIMITS), a_session()
        assert store.append(session, a_turn()).stored
        before = self.primary(stack)
        (old,) = [pod for pod in stack.pods[:3] if pod.host == before]
        eventually(lambda: self.replicated(stack), "the turn is on one server alone")
        old.kill()
        eventually(lambda: self.primary(stack) != before, "no other was promoted", 30)
        old.start()
        eventually(lambda: self.is_whole(stack), "the old one does not follow", 30)
        with old.client() as client:
            assert client.info("replication")["role"] == "slave"  # type: ignore[index]
        with Redis(self.primary(stack), stack.port, password=stack.password("operator")) as client:
            assert client.get(f"conv:{session}")

    def replicated(self, stack: Stack) -> bool:
        found = []
        for pod in stack.pods[:3]:
            with pod.client() as client:
                found.append(bool(client.keys("conv:*")))
        return all(found)

    def test_all_come_back_with_what_they_had_after_all_were_stopped(self, stack: Stack) -> None:
        eventually(lambda: self.is_whole(stack), "they are not whole", 30)
        before = self.primary(stack)
        stack.kill()
        stack.start(FollowingPod, SentinelPod)
        eventually(lambda: self.is_whole(stack), "they are not whole again", 30)
        assert self.primary(stack) == before


class TestCluster:
    @pytest.fixture
    def stack(self, tmp_path: Path) -> Iterator[Stack]:
        stack = Stack(tmp_path, "cluster", 31)
        try:
            yield stack.start(ClusterPod)
        finally:
            stack.kill()

    def create(self, stack: Stack) -> str:
        variables = {"PATH": os.environ["PATH"], "NODES": " ".join(stack.hosts), "REDIS_PORT": str(stack.port),
                     "SECRETS": str(stack.secrets / "redis")}  # fmt: skip
        done = subprocess.run(["sh", str(stack.config / "create.sh")], env=variables, capture_output=True, text=True,
                              timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_the_job_makes_it_and_run_again_it_changes_nothing(self, stack: Stack) -> None:
        assert self.create(stack).endswith("the cluster is whole\n")
        eventually(lambda: len(self.masters(stack)) == 3, "the replicas are masters")
        masters = self.masters(stack)
        assert self.create(stack) == "OK\n" * 6 + "the cluster is whole\n"
        assert self.masters(stack) == masters
        user = Redis(stack.hosts[0], stack.port, username="onesource", password=stack.password("onesource"))
        with user as client:
            assert client.execute_command("CLUSTER", "SLOTS")
            with pytest.raises(RedisError):
                client.execute_command("CLUSTER", "RESET")

    def test_its_user_moves_slots_with_their_keys(self, stack: Stack) -> None:
        self.create(stack)
        eventually(lambda: len(self.masters(stack)) == 3, "the replicas are masters")
        key = f"conv:{{{tags()[0]}}}"
        (source,) = (one for one in self.nodes(stack) if one[-1].startswith("0-"))
        other = next(iter(self.masters(stack) - {source[0]}))
        host = source[1].partition(":")[0]
        with Redis(host, stack.port, username="onesource", password=stack.password("onesource")) as client:
            client.set(key, "a value")
            done = subprocess.run(
                ["redis-cli", "--user", "cluster", "--cluster", "reshard", f"{host}:{stack.port}", "--cluster-yes",
                 "--cluster-from", source[0], "--cluster-to", other, "--cluster-slots", "1"],
                env={"PATH": os.environ["PATH"], "REDISCLI_AUTH": stack.password("cluster")},
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            with pytest.raises(MovedError):
                client.get(key)
        (owner,) = (one for one in self.nodes(stack) if one[0] == other)
        place = owner[1].partition(":")[0]
        with Redis(place, stack.port, username="onesource", password=stack.password("onesource")) as client:
            assert client.get(key) == b"a value"

    def masters(self, stack: Stack) -> set[str]:
        return {words[0] for words in self.nodes(stack) if "master" in words[2]}

    def nodes(self, stack: Stack) -> list[list[str]]:
        name, password = "cluster", stack.password("cluster")
        with Redis(stack.hosts[0], stack.port, username=name, password=password) as client:
            lines = client.execute_command("CLUSTER", "NODES").decode().splitlines()
        return [line.split() for line in lines]
