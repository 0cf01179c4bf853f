"""How the faults begin and end that only Redis has: by commands to it, or changes of its files, while it runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.faults.injections import Fault, Run
from tests.faults.proxy import Mode
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


def configured(
    begin: Callable[[Redis], object], end: Callable[[Redis], object], *, hang_up: bool = False, one: bool = False
) -> Fault:
    """Commands change every server that takes writes, or with `one` a single one of them; `hang_up` also ends the
    connections that there are, which it would go on to serve."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        redis = run.stack.redis
        servers = [redis.owner(f"conv:{run.load.sessions[0]}")] if one else redis.writable()
        with ExitStack() as connected:
            clients = [connected.enter_context(server.client()) for server in servers]
            for client in clients:
                client.ping()  # connected before: later it may not get in
            for client in clients:
                begin(client)
                if hang_up:
                    client.client_kill_filter(_type="normal", skipme=True)
            yield
            for client in clients:
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
    """Harm a master; when another server has its place and turns go there, cure it."""

    @contextmanager
    def fault(run: Run) -> Iterator[None]:
        redis = run.stack.redis
        before = redis.owner(f"conv:{run.load.sessions[0]}")
        getattr(before, harm)()
        yield
        redis.promoted(before)
        getattr(before, cure)()
        run.stack.wait_until_whole("redis")

    return fault


@contextmanager
def replaced(run: Run) -> Iterator[None]:
    """Have the sentinels name another primary while the old one answers."""
    run.stack.redis.fail_over()
    yield
    run.stack.wait_until_whole("redis")


@contextmanager
def sentinels_killed(run: Run) -> Iterator[None]:
    """Nobody says which server is the primary; the servers go on."""
    for sentinel in run.stack.redis.sentinels:
        sentinel.kill()
    yield
    for sentinel in run.stack.redis.sentinels:
        sentinel.start()
    run.stack.wait_until_whole("redis")


@contextmanager
def resharded(run: Run) -> Iterator[None]:
    """The slots of all conversations go from one master to another, key by key."""
    cluster = run.stack.redis
    for slot in sorted({key_slot(f"conv:{session}".encode()) for session in run.load.sessions}):
        source = cluster.owner_of(slot)
        target = next(master for master in cluster.writable() if master is not source)
        cluster.move(slot, source, target, pause=lambda: time.sleep(0.01))
    yield
    run.stack.wait_until_whole("redis")
