"""Redis' own snapshot: made by BGSAVE, waited for, and opened where it is or fetched."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from redis.exceptions import RedisError, ResponseError

from conversations.errors import NoSnapshot, StoreUnavailable
from conversations.stores.redis.cluster import servers
from conversations.stores.redis.patient import errors, patient_client
from embedded import children

SNAPSHOT_SECONDS = 600


def of_each(folder: Path) -> list[AbstractContextManager[tuple[BinaryIO, str]]]:
    """Return what opens the snapshot of the server, or of each master of a cluster. Raise NoSnapshot."""
    try:
        client = patient_client()  # BGSAVE forks a large process, and Redis answers nothing meanwhile
        with errors():
            every = servers(client)
    except StoreUnavailable as error:
        raise NoSnapshot(error.reason) from error
    return [_opened(client, folder) for client in every]


@contextmanager
def _opened(client: Any, folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Have Redis save, and yield the snapshot with how it was reached; one that has to be fetched is a file in
    the folder meanwhile. Raise NoSnapshot."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(_dump(client, _save(client), folder))
        except (RedisError, OSError, subprocess.SubprocessError) as error:
            raise NoSnapshot(type(error).__name__) from error
        yield found  # outside: what fails here is the reader's, a full disk for one


def _save(client: Any) -> int:
    """Have Redis save, and return when it did, in its own time. Raise RedisError or OSError."""
    while client.lastsave().timestamp() >= client.time()[0]:
        time.sleep(0.1)  # the time of a save is in whole seconds: two of one second look like one
    before = client.lastsave()
    deadline = time.monotonic() + SNAPSHOT_SECONDS
    asked = False
    while time.monotonic() < deadline:
        state = client.info("persistence")
        if state["rdb_bgsave_in_progress"]:
            time.sleep(0.1)
        elif client.lastsave() > before:
            return int(client.lastsave().timestamp())
        elif asked and state["rdb_last_bgsave_status"] != "ok":
            raise NoSnapshot("BGSAVE failed; see the log of Redis")
        else:
            with suppress(ResponseError):  # one has just begun: that one is waited for
                client.bgsave(schedule=True)
                asked = True
            time.sleep(0.1)
    raise NoSnapshot(f"BGSAVE took longer than {SNAPSHOT_SECONDS} s")


@contextmanager
def _dump(client: Any, saved: int, folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open the snapshot: the server's own file where this machine has it, else what redis-cli fetches."""
    options = _address(client)
    if path := _local_file(client, options, saved):
        with path.open("rb") as dump:
            yield dump, "copied from the disk of the server"
        return
    draft = folder / ".onesource-dump.part"
    try:
        draft.touch(mode=0o600)
        _fetch(_redis_cli(), options, draft)
        with draft.open("rb") as dump:
            yield dump, "fetched by redis-cli --rdb"
    finally:
        draft.unlink(missing_ok=True)


def _local_file(client: Any, options: dict[str, Any], saved: int) -> Path | None:
    """Return the server's own file, None where it is on another machine or cannot be read."""
    if not options.get("path") and options.get("host") not in ("localhost", "127.0.0.1", "::1"):
        return None
    with suppress(RedisError, OSError):
        config = client.config_get("dir", "dbfilename")
        path = Path(config["dir"], config["dbfilename"])
        # A forwarded port is local too, and the file of that name then another server's.
        if abs(path.stat().st_mtime - saved) < 3 and os.access(path, os.R_OK):
            return path
    return None


def _redis_cli() -> str:
    program = shutil.which("redis-cli") or str(Path(children.redis_binary()).with_name("redis-cli"))
    if not os.access(program, os.X_OK):
        raise NoSnapshot("there is no redis-cli here to fetch it from a remote server")
    return program


def _address(client: Any) -> dict[str, Any]:
    """Return how the server is reached, behind Sentinel too."""
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        found = {name: getattr(connection, name, None) for name in ("host", "port", "path")}
    finally:
        pool.release(connection)
    return {**pool.connection_kwargs, **found}


def _fetch(program: str, options: dict[str, Any], target: Path) -> None:
    where = ["-s", options["path"]] if options.get("path") else ["-h", options["host"], "-p", str(options["port"])]
    user = ["--user", options["username"]] if options.get("username") else []
    tls = ["--tls"] if "ssl_cert_reqs" in options else []
    for option, name in (("--cacert", "ssl_ca_certs"), ("--cert", "ssl_certfile"), ("--key", "ssl_keyfile")):
        tls += [option, options[name]] if options.get(name) else []
    # The password goes by the environment: a command line can be read by everyone on the machine.
    environment = os.environ | ({"REDISCLI_AUTH": options["password"]} if options.get("password") else {})
    done = subprocess.run(  # noqa: S603
        [program, *where, *user, *tls, "--rdb", str(target)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SNAPSHOT_SECONDS,
        check=False,
    )
    if done.returncode or not target.stat().st_size:
        raise NoSnapshot("redis-cli --rdb could not fetch it: the user may need the right to PSYNC")
