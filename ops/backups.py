"""Backups: one file of both stores, made atomically, kept so many of, and proven by restoring it."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from django.conf import settings
from pymongo import MongoClient
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from conversations.cache import HistorySerializer, make_key, session_of
from conversations.errors import ConversationError, NoStore
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.turns import MESSAGE_ID, History, Limits, now, stamp
from onesource import children, embedded
from ops import direct
from ops.archive import DUMP, FORMAT, MAX_LINE, VERSION, Archive, Writer, counted, is_ours
from ops.restoring import BATCH, MongoTarget, RedisTarget, load

NAME = re.compile(r"onesource-\d{8}T\d{6}Z\.tar")
NOTE = "backup"
SNAPSHOT_SECONDS = 600
_ALL = Limits(ttl=2**31, max_turns=2**31, max_bytes=2**40)
_PAGE = 250
_SCRATCH = "onesource-verify-"

Advance = Callable[[int, int], None]


class BackupRunning(ConversationError):
    """Another backup is being written to this folder"""


class NotVerified(ConversationError):
    """The backup could not be tried out"""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that is there now."""

    path: Path
    bytes: int
    manifest: dict[str, Any]
    removed: tuple[str, ...]
    missing: tuple[str, ...]
    """The stores that could not be reached, and are not in it."""


def create(folder: Path, keep: int, advance: Advance) -> Made:
    """Write a backup of the stores that can be reached; with both in it, remove the oldest beyond `keep`.

    Raise NoStore, BackupRunning, StoreUnavailable or OSError with nothing left behind.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        aliases = direct.reachable()
        if not aliases:
            raise NoStore
        with _writer(folder) as (writer, created):
            census = _Census()
            writer.add_lines(census.lines(aliases, created, advance))
            snapshot = _add_snapshot(writer) if REDIS in aliases else "none: Redis could not be reached"
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "created": stamp(created),
                "tool": f"onesource {settings.VERSION}",
                "stores": list(aliases),
                "counts": {alias: dict(census.counts[alias]) for alias in aliases},
                "snapshot": snapshot,
            }
            size = writer.finish(manifest)
        missing = tuple(alias for alias in ALIASES if alias not in aliases)
        removed = () if missing else _retain(folder, keep, writer.path)
        if not missing:
            for alias in aliases:
                store(alias).write_note(NOTE, stamp(created))
        return Made(writer.path, size, manifest, removed, missing)


def verify(path: Path, advance: Advance) -> dict[str, Any]:
    """Restore the backup into servers of our own, compare every conversation there with it, and return how many
    there were and how many differ. Raise BadBackup where the file itself is not whole."""
    _sweep_scratch()
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(path))
        archive.check_dump()
        redis, mongo, home = stack.enter_context(_throwaway())
        documents = mongo[settings.DATABASES["mongo"]["NAME"]]["conversations"]
        targets = {REDIS: RedisTarget(redis, _ALL), MONGO: MongoTarget(documents, _ALL, None)}
        # The servers are nobody's: damage that is met half way harms nothing, and one pass is saved.
        load(counted(archive.records(), advance, 2 * archive.lines), targets, _ALL)
        found, differing = Counter[str](), Counter[str]()
        lines = archive.raw()
        for number, batch in enumerate(iter(lambda: list(islice(lines, BATCH)), [])):
            advance(archive.lines + number * BATCH, 2 * archive.lines)
            _compare(batch, redis, documents, found, differing)
        with direct.patient(MONGO):
            extra = redis.dbsize() + documents.estimated_document_count() - found["keys"]
        facts = {
            "file": str(path),
            "created": archive.manifest["created"],
            "conversations": {alias: found[alias] for alias in ALIASES},
            "differing": sum(differing.values()) + abs(extra),
            "snapshot": archive.manifest["snapshot"],
            "snapshot_conversations": _try_dump(archive, home) if archive.has_dump else None,
        }
    return facts


class _Census:
    """Reads the stores line by line, and counts."""

    def __init__(self) -> None:
        self.counts = {alias: Counter(conversations=0, turns=0, tombstones=0, corrupt=0) for alias in ALIASES}

    def lines(self, aliases: Iterable[str], created: datetime, advance: Advance) -> Iterator[bytes]:
        read = {REDIS: self._redis, MONGO: self._mongo}
        expected = sum(map(_about, aliases))
        number = 0
        for alias in aliases:
            for line in read[alias](created):
                number += 1
                if number % 500 == 0:
                    advance(number, max(number, expected))
                yield line

    def _redis(self, created: datetime) -> Iterator[bytes]:
        client = direct.redis()
        seen: set[int] = set()  # SCAN may name a key twice
        for pattern, begin, end in ((b"conv:*", 5, None), (b"tomb:{conv:*}", 11, -1)):
            cursor = 0
            while True:
                cursor, keys = direct.step(client, pattern.decode(), cursor, _PAGE)
                names = {key[begin:end] for key in keys}
                new = [name.decode() for name in names if hash(name) not in seen]
                seen.update(map(hash, names))
                yield from self._redis_page(client, new, created)
                if not cursor:
                    break

    def _redis_page(self, client: Any, sessions: list[str], created: datetime) -> Iterator[bytes]:
        pipeline = client.pipeline(transaction=False)
        for session in sessions:
            key = f"conv:{session}"
            pipeline.get(key).ttl(key).get(f"tomb:{{{key}}}")
        with direct.patient(REDIS):
            answers = pipeline.execute(raise_on_error=False)
        since = int((now() - created).total_seconds())
        parse = HistorySerializer({}).loads
        for number, session in enumerate(sessions):
            value, ttl, tombstone = answers[3 * number : 3 * number + 3]
            history = History()
            messages: list[bytes] = []
            try:
                make_key(session)
                if isinstance(value, bytes):
                    history = parse(value)
                    messages = value[:-1].split(b"\n")
                elif value is not None:
                    raise ValueError("not a string")
            except (ConversationError, ValueError):
                self.counts[REDIS]["corrupt"] += 1
            seconds = ttl + since if isinstance(ttl, int) and ttl >= 0 else None
            buried = tombstone.decode(errors="replace") if isinstance(tombstone, bytes) else None
            yield from self._line(REDIS, session, seconds, buried, history, messages)

    def _mongo(self, created: datetime) -> Iterator[bytes]:
        with direct.patient(MONGO):
            cursor = direct.documents().find({}, batch_size=_PAGE)
        while True:
            with direct.patient(MONGO):
                page = list(islice(cursor, _PAGE))
            if not page:
                return
            time = now()
            for document in page:
                yield from self._mongo_line(document, time, created)

    def _mongo_line(self, document: dict[str, Any], time: datetime, created: datetime) -> Iterator[bytes]:
        expiry, session = document.get("expires_at"), session_of(str(document["_id"]))
        if expiry is None or expiry.replace(tzinfo=time.tzinfo) <= time:
            return
        history = History()
        records: Any = document.get("messages")
        try:
            make_key(session)
            if records != []:
                history = History.parse(records)
        except (TypeError, ValueError):
            self.counts[MONGO]["corrupt"] += 1
        seconds = int((expiry.replace(tzinfo=time.tzinfo) - created).total_seconds())
        messages = [message.line()[:-1] for message in history]
        yield from self._line(MONGO, session, seconds, document.get("tombstone"), history, messages)

    def _line(
        self, alias: str, session: str, ttl: int | None, tombstone: str | None, history: History, messages: list[bytes]
    ) -> Iterator[bytes]:
        if tombstone and not MESSAGE_ID.fullmatch(tombstone):
            self.counts[alias]["corrupt"] += 1
            tombstone = None
        if not (history or tombstone):
            return
        head = orjson.dumps({"store": alias, "session": session, "ttl": ttl, "tombstone": tombstone})
        line = b'%s,"messages":[%s]}\n' % (head[:-1], b",".join(messages))
        if len(line) > MAX_LINE:
            self.counts[alias]["corrupt"] += 1
            return
        self.counts[alias].update(conversations=bool(history), turns=len(history) // 2, tombstones=bool(tombstone))
        yield line


def _about(alias: str) -> int:
    """Return about how many conversations a store has, at once."""
    with direct.patient(alias):
        return int(direct.redis().dbsize() if alias == REDIS else direct.documents().estimated_document_count())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; what a dead run left in it is removed. The lock ends with the process that holds it."""
    lock = os.open(folder / ".onesource-backup.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRunning(folder) from None
        for left in folder.glob(".onesource-*.part"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


@contextmanager
def _writer(folder: Path) -> Iterator[tuple[Writer, datetime]]:
    """Begin a backup under a name of this second, or of the next one that is free."""
    while True:
        created = now()
        writer = Writer(folder, created)
        with writer:
            if not writer.path.exists():
                yield writer, created
                return
        time.sleep(0.2)


def _retain(folder: Path, keep: int, newest: Path) -> tuple[str, ...]:
    """Remove the oldest of our own complete backups beyond so many; nothing else, whatever its name."""
    named = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name) and not path.is_symlink())
    surplus = [path for path in named if path != newest and is_ours(path)][: -(keep - 1) or None]
    for path in surplus:
        path.unlink()
    return tuple(path.name for path in surplus)


# --- The Redis snapshot ----------------------------------------------------------------------------


def _add_snapshot(writer: Writer) -> str:
    """Add Redis' own snapshot and return how it was come by; without one, why. A backup is worth having all the
    same: the conversations are in it."""
    client = direct.redis()
    try:
        saved = _save(client)
        with _dump(client, saved, writer.path.parent) as (dump, how):
            writer.add(DUMP, dump)
            return how
    except (RedisError, OSError, subprocess.SubprocessError) as error:
        reason = str(error) if isinstance(error, _NoDump) else type(error).__name__
        return f"none: {reason}; the archive has every conversation all the same"


class _NoDump(OSError):
    """Why there is no snapshot."""


def _save(client: Any) -> int:
    """Have Redis save, and return when it did, in its own time. Raise RedisError or OSError."""
    while client.lastsave().timestamp() >= client.time()[0]:
        time.sleep(0.1)  # the time of a save is told in whole seconds: two of one second look like one
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
            raise _NoDump("BGSAVE failed; see the log of Redis")
        else:
            with suppress(ResponseError):  # one has just begun: that one is waited for
                client.bgsave(schedule=True)
                asked = True
            time.sleep(0.1)
    raise _NoDump(f"BGSAVE took longer than {SNAPSHOT_SECONDS} s")


@contextmanager
def _dump(client: Any, saved: int, folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open the snapshot: the server's own file where this machine has it, else what redis-cli fetches."""
    options = _address(client)
    local = options.get("path") or options.get("host") in ("localhost", "127.0.0.1", "::1")
    if local:
        with suppress(RedisError, OSError):
            config = client.config_get("dir", "dbfilename")
            path = Path(config["dir"], config["dbfilename"])
            # A forwarded port is local too, and the file of that name then another server's.
            if abs(path.stat().st_mtime - saved) < 3:
                with path.open("rb") as dump:
                    yield dump, "copied from the disk of the server"
                    return
    program = shutil.which("redis-cli") or str(Path(children.redis_binary()).with_name("redis-cli"))
    if not os.access(program, os.X_OK):
        raise _NoDump("there is no redis-cli here to fetch it from a remote server")
    draft = folder / ".onesource-dump.part"
    try:
        draft.touch(mode=0o600)
        _fetch(program, options, draft)
        with draft.open("rb") as dump:
            yield dump, "fetched by redis-cli --rdb"
    finally:
        draft.unlink(missing_ok=True)


def _address(client: Any) -> dict[str, Any]:
    """Return how the server is reached, behind Sentinel too."""
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        raise _NoDump("a cluster has no one snapshot")
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
        raise _NoDump("redis-cli --rdb could not fetch it: the user may lack the right to PSYNC")


# --- Servers to try a backup out -------------------------------------------------------------------


@contextmanager
def _throwaway() -> Iterator[tuple[Any, Any, Path]]:
    """Start an empty Redis and an empty Mongo of our own; they end, and their data goes, with us."""
    home = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        for name in ALIASES:
            (home / f"{name}.port").write_text(str(children.free_port()))
        with embedded.start(home, redis=True, mongo=True) as stores:
            redis = Redis.from_url(stores.urls[REDIS], socket_timeout=direct.PATIENCE)
            with redis, MongoClient[dict[str, Any]](stores.urls[MONGO], tz_aware=True, journal=False) as mongo:
                redis.config_set("appendonly", "no")  # nothing here is to survive
                yield redis, mongo, home
    except embedded.EmbeddedError as error:
        raise NotVerified(error) from None
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _sweep_scratch() -> None:
    """Remove what killed runs of ours left in the temporary folder."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if left.stat().st_uid != os.getuid() or time.time() - left.stat().st_mtime < 60:
                continue
            with (left / "serve.lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)


def _compare(lines: list[bytes], redis: Any, documents: Any, found: Counter[str], differing: Counter[str]) -> None:
    """Count which of the lines are in the throwaway stores exactly as in the backup."""
    records = [orjson.loads(line) for line in lines]  # each was parsed as a history when it was restored
    cached = [record for record in records if record["store"] == REDIS]
    keys = [make_key(record["session"]) for record in cached]
    with direct.patient(REDIS):
        values = redis.mget([*keys, *(f"tomb:{{{key}}}" for key in keys)]) if keys else []
    for record, value, tombstone in zip(cached, values, values[len(keys) :], strict=False):
        messages = orjson.loads(b"[%s]" % (value or b"")[:-1].replace(b"\n", b","))
        same = messages == record["messages"] and (tombstone or b"").decode() == (record["tombstone"] or "")
        found.update({"keys": (value is not None) + (tombstone is not None), REDIS: bool(messages)})
        differing[REDIS] += not same
    kept = {make_key(record["session"]): record for record in records if record["store"] == MONGO}
    with direct.patient(MONGO):
        there = {one["_id"]: one for one in documents.find({"_id": {"$in": list(kept)}})} if kept else {}
    for key, record in kept.items():
        document = there.get(key, {})
        same = all(document.get(name) == record[name] for name in ("messages", "tombstone"))
        found.update({"keys": key in there, MONGO: bool(record["messages"])})
        differing[MONGO] += not same


def _try_dump(archive: Archive, home: Path) -> int | None:
    """Return how many conversations a Redis of ours finds in the snapshot, None where it cannot read it."""
    folder = home / "dump"
    folder.mkdir(mode=0o700)
    with (folder / DUMP).open("wb") as dump:
        archive.copy_dump(dump)
    port = children.free_port()
    words = f"--bind 127.0.0.1 --port {port} --appendonly no --dbfilename {DUMP} --dir".split()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [children.redis_binary(), *words, str(folder), "--save", ""],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=children.last_will(),
        )
    try:
        with closing(Redis(port=port, socket_timeout=direct.PATIENCE)) as client:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    spaces = client.info("keyspace")
                    break
                except RedisError:  # not up, or still loading
                    time.sleep(0.1)
            else:
                return None  # a later Redis has written it
            return sum(_count(port, int(space[2:])) for space in spaces)
    finally:
        process.kill()
        process.wait()


def _count(port: int, database: int) -> int:
    with closing(Redis(port=port, db=database, socket_timeout=direct.PATIENCE)) as client:
        return sum(1 for _ in client.scan_iter("conv:*", count=1000))
