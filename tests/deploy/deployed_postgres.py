"""PostgreSQL as the deployment starts it: its way to make data, its user and its passwords."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.deploy.files import BASE, containers, environment_of, make_secrets, manifest
from tests.servers import Server, eventually

_DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Debian's programs of the server are not on PATH."""


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, None where there are none."""
    found = shutil.which("initdb")
    return Path(found).parent if found else (_DEBIANS[-1] if _DEBIANS else None)


class DeployedPostgres(Server):
    """PostgreSQL with the deployment's files, on a port and in a folder of its own, as a user who is not root: it
    refuses that one. That user has to reach the folder, so it is not below pytest's, which are closed."""

    def __init__(self) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="onesource-postgres-")))
        found = binaries()
        assert found, "PostgreSQL is not installed: .ci/run installs it"
        self.binaries = found
        self.secrets = make_secrets("k8s", self.directory / "secrets")
        self.data = self.directory / "data"
        self._user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._user:
            shutil.chown(self.directory, "postgres", "postgres")

    @property
    def url(self) -> str:
        """The URL that the service is given, with the host of this machine."""
        given = (self.secrets / "onesource" / "database_url").read_text()
        return given.replace("@postgres:5432", f"@127.0.0.1:{self.port}")

    def command(self) -> list[str]:
        return [str(self.binaries / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
                "-k", str(self.directory), "-c", "fsync=off"]  # fmt: skip

    def start(self) -> "DeployedPostgres":
        fresh = not self.data.exists()
        if fresh:
            self._make_data()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
                **self._user,  # type: ignore[call-overload]
            )  # fmt: skip
        eventually(self.answers, "PostgreSQL does not answer")
        if fresh:
            self.run("sh", str(BASE / "postgres" / "setup.sh"))
        return self

    def stop(self, sig: int = signal.SIGINT) -> None:
        """Stop it; SIGTERM would wait for its clients."""
        super().stop(sig)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def answers(self) -> bool:
        try:
            psycopg.connect(host="127.0.0.1", port=self.port, dbname="nobody", user="nobody", connect_timeout=2).close()
        except psycopg.OperationalError as error:
            return "Connection refused" not in str(error) and "starting up" not in str(error)
        return True

    def run(self, *command: str) -> None:
        """Run a program as the image does, on the server's socket."""
        variables = {
            "PATH": f"{self.binaries}:{os.environ['PATH']}",
            "PGHOST": str(self.directory),
            "PGPORT": str(self.port),
            "SECRETS": str(self.secrets / "postgres"),
        }
        subprocess.run(command, env=variables, check=True, capture_output=True, text=True)

    def connect(self, user: str, database: str, password: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host="127.0.0.1", port=self.port, dbname=database, user=user, password=password,
                               connect_timeout=5)  # fmt: skip

    def _make_data(self) -> None:
        (container,) = containers(manifest("StatefulSet", "postgres"))
        options = environment_of(container)["POSTGRES_INITDB_ARGS"].split()
        file = self.directory / "password"
        file.write_bytes((self.secrets / "postgres" / "admin_password").read_bytes())
        if self._user:
            shutil.chown(file, "postgres")
        subprocess.run(
            [str(self.binaries / "initdb"), "-D", str(self.data), "-U", "postgres", f"--pwfile={file}", "--no-sync",
             *options], check=True, capture_output=True, **self._user,  # type: ignore[call-overload]
        )  # fmt: skip
