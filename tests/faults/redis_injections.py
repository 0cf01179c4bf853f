"""How the faults begin and end that only Redis has: by commands to it, or changes of its files, while it runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.clusters import ClusterOfServers
from tests.faults.injections import Fault, Run
from tests.faults.proxy import Mode
from tests.sentinels import Deployment
from tests.servers import eventually


@contextmanager
def flapping(run: Run) -> Iterator[None]:
    """Redis goes and comes back every second."""
    over = threading.Event()

    def flap() -> None:
        mode = Mode.REFUSE
        while not over.is_set():
            run.stack.wire("redis", mode)
            mode = Mode.PASS if mode is Mode.REFUSE else Mode.REFUSE
            over.wait(1.0)

    thread = threading.Thread(target=flap, name="flapping")
    thread.start()
    yield
    over.set()
    thread.join()
    run.stack.wire("redis", Mode.PASS)


def configured(begin: Callable[[Redis], object], end: Callable[[Redis], object], *, hang_up: bool = False) -> Fault:
    """Redis refuses clients; `hang_up` also ends the connections that there are, which it would go on to serve."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        with run.stack.redis.client() as client:
            client.ping()  # connected before: later it may not get in
            begin(client)
            if hang_up:
                client.client_kill_filter(_type="normal", skipme=True)
            yield
            end(client)

    return fault


@contextmanager
def misconf(run: Run) -> Iterator[None]:
    """Redis cannot save its snapshots, and therefore takes no writes."""
    in_the_way = run.stack.redis.directory / "dump.rdb"
    in_the_way.unlink(missing_ok=True)  # an earlier row's last save
    in_the_way.mkdir()  # a folder cannot be replaced by a file, not even by root
    with run.stack.redis.client() as client:
        client.config_set("save", "3600 1")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save worked")
        yield
        in_the_way.rmdir()
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "the save failed")
        client.config_set("save", "")


@contextmanager
def busy(run: Run) -> Iterator[None]:
    """A script does not end."""
    with run.stack.redis.client() as client, Redis.from_url(run.stack.redis.url, socket_timeout=120) as looping:
        client.config_set("lua-time-limit", 20)

        def loop() -> None:
            with suppress(RedisError):  # it is killed
                looping.eval("while true do end", 0)

        thread = threading.Thread(target=loop, name="busy")
        thread.start()
        yield
        client.script_kill()
        thread.join()
        client.config_set("lua-time-limit", 5000)


@contextmanager
def loading(run: Run) -> Iterator[None]:
    """Redis is started again and takes some seconds to load its data: it answers LOADING, then stalls, in turns."""
    redis = run.stack.redis
    names = [f"filler:{number}" for number in range(20_000)]
    with redis.client() as client, client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, "x")
        pipeline.execute()
    redis.kill()
    options = redis.options
    redis.options = (*options, "--key-load-delay", "60")
    thread = threading.Thread(target=redis.start, name="loading")
    thread.start()
    yield
    thread.join()
    redis.options = options
    with redis.client() as client:
        client.config_set("key-load-delay", 0)
        client.unlink(*names)


@contextmanager
def corrupted(run: Run) -> Iterator[None]:
    """What Redis has of every conversation is overwritten by what is no history."""
    with run.stack.redis.client() as client:
        for session in run.load.sessions:
            client.set(f"conv:{session}", 'this is not {"a": history\n')
    if not run.terms.dual_write:
        run.terms.destroyed_at = time.monotonic()
    yield


def failed_over(harm: str, cure: str) -> Fault:
    """Harm the primary; when the sentinels have named another and turns go there, cure it."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        redis = run.stack.redis
        assert isinstance(redis, Deployment)
        before = redis.primary()
        getattr(before, harm)()
        yield
        redis.promoted(before)
        getattr(before, cure)()
        eventually(redis.is_whole, "the old primary does not follow the new one", 30)

    return fault


@contextmanager
def replaced(run: Run) -> Iterator[None]:
    """Have the sentinels name another primary while the old one answers."""
    redis = run.stack.redis
    assert isinstance(redis, Deployment)
    redis.fail_over()
    yield
    eventually(redis.is_whole, "the old primary does not follow the new one", 30)


def one_master(harm: str, cure: str) -> Fault:
    """Harm one master of a cluster; when its replica has been promoted and turns go there, cure it."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        cluster = run.stack.redis
        assert isinstance(cluster, ClusterOfServers)
        slot = key_slot(f"conv:{run.load.sessions[0]}".encode())
        before = cluster.owner_of(slot)
        getattr(before, harm)()
        yield
        cluster.promoted(before, slot)
        getattr(before, cure)()
        eventually(cluster.is_whole, "the old master does not follow the new one", 30)

    return fault


@contextmanager
def resharded(run: Run) -> Iterator[None]:
    """The slots of all conversations go from one master to another, key by key."""
    cluster = run.stack.redis
    assert isinstance(cluster, ClusterOfServers)
    _move_all(run, cluster)
    yield
    eventually(cluster.is_whole, "the cluster is not whole")


def _move_all(run: Run, cluster: ClusterOfServers) -> None:
    for slot in sorted({key_slot(f"conv:{session}".encode()) for session in run.load.sessions}):
        source = cluster.owner_of(slot)
        owners = {cluster.owner_of(first) for first in (0, 8192, 16383)} - {source}
        cluster.move(slot, source, owners.pop(), pause=lambda: time.sleep(0.01))


def on_one_master(begin: Callable[[Redis], object], end: Callable[[Redis], object]) -> Fault:
    """Change one master of a cluster by commands to it alone."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        cluster = run.stack.redis
        assert isinstance(cluster, ClusterOfServers)
        with cluster.owner(f"conv:{run.load.sessions[0]}").client() as client:
            begin(client)
            yield
            end(client)

    return fault
