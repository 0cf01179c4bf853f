"""Migrations at the start of the service, which has to start without a database too: then they are made later."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, connections

from conversations.errors import StoreUnavailable
from conversations.models import ALIAS
from conversations.stores import misconfigured, store
from embedded import children

MIGRATE_SECONDS = 300
REACH_SECONDS = 1  # an unavailable database must not delay the start
RETRY_SECONDS = 5
_LOCK = 0x6F6E65736F757263  # the number of the lock, which nothing else in the database takes: "onesourc"

logger = logging.getLogger(__name__)


def migrate() -> None:
    """Bring both databases up to date; one that cannot be reached is tried again while we serve."""
    close_sqlite()
    tries = [
        Migration("default", here=connection.vendor == "sqlite"),
        Migration(ALIAS, here=settings.EMBEDDED_MONGO),
    ]
    for each in tries:
        each.start()
    for each in tries:
        each.wait()


def close_sqlite() -> None:
    """Leave the SQLite file of VAR_DIR, which has the passwords' hashes and the sessions, to its owner alone."""
    database = settings.VAR_DIR / "onesource.sqlite3"
    if str(settings.DATABASES["default"]["NAME"]) == str(database):
        database.touch(mode=0o600)  # SQLite makes its other files with the rights of this one
        for each in settings.VAR_DIR.glob(f"{database.name}*"):
            children.close_to_others(each)


class Migration(threading.Thread):
    """`migrate` on one database until it has worked; its process reads where the embedded stores are."""

    def __init__(self, database: str, *, here: bool) -> None:
        super().__init__(name=f"migrate-{database}", daemon=True)
        self.database = database
        self._reached = here
        self._tried = threading.Event()

    def wait(self) -> None:
        """Return after the first try, or soon if the database, which may not even refuse, is not reached."""
        if not self._tried.wait(REACH_SECONDS) and self._reached:
            self._tried.wait(MIGRATE_SECONDS)

    def run(self) -> None:
        while (problem := self._problem()) is not None:
            fields = {"database": self.database, "problem": problem, "retry_seconds": RETRY_SECONDS}
            logger.error("migrate_failed", extra=fields)
            self._tried.set()
            time.sleep(RETRY_SECONDS)
        self._tried.set()

    def _problem(self) -> str | None:
        """Return what went wrong in one line, None if nothing did."""
        try:
            if not self._reached:
                self._reach()  # first, and in this process: another one a retry would cost a second of CPU each
                self._reached = True
            self._migrate()
        except subprocess.CalledProcessError as error:
            return _last_line(error.stderr)
        except StoreUnavailable as error:
            return misconfigured(ALIAS, error) or _last_line(f"{type(error).__name__}: {error}")
        except (OSError, subprocess.TimeoutExpired, DatabaseError) as error:
            return _last_line(f"{type(error).__name__}: {error}")
        return None

    def _reach(self) -> None:
        if self.database == ALIAS:
            store(ALIAS).ping()
            mongo: Any = connections[ALIAS]
            mongo.close_pool()  # this process has no more use for the client, nor for its threads
        else:
            with closing(connections[self.database]) as there:
                there.ensure_connection()

    def _migrate(self) -> None:
        manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
        with _alone(self.database):
            subprocess.run(  # noqa: S603
                [*manage, "migrate", f"--database={self.database}", "--noinput", "--skip-checks"],
                check=True,
                capture_output=True,
                text=True,
                timeout=MIGRATE_SECONDS,
                # It counts nothing, and would leave its files among the workers'.
                env={name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"},
                preexec_fn=children.parent_death_hook(),
            )


@contextmanager
def _alone(database: str) -> Iterator[None]:
    """Keep other servers from migrating the same PostgreSQL meanwhile: two that start at once would both make what is
    missing, and one would fail. Wait until that is so, or raise DatabaseError after MIGRATE_SECONDS."""
    here = connections[database]
    if here.vendor != "postgresql":
        yield
        return
    with closing(here), here.cursor() as cursor:
        cursor.execute("SET lock_timeout = %s", [MIGRATE_SECONDS * 1000])
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])  # the connection's: it ends with that
        yield


def _last_line(text: str) -> str:
    """Return the line of a traceback or of a driver's message that names the problem."""
    lines = [line for line in text.splitlines() if line and not line[0].isspace()]
    return lines[-1] if lines else "no message"
