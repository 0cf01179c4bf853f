"""The ledger of deletions, outside the two stores: on `default`, and in the lines that are not moved there yet.

A restore honours it where both stores were lost with their tombstones. It is known from when on it holds every
deletion, so that a restore can tell what may come back.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from django.db import DatabaseError, close_old_connections
from django.db.migrations.recorder import MigrationRecorder

from conversations.clock import now
from conversations.runtime import deletions
from conversations.runtime.deletions import Deletion
from conversations.stores.batches import batches
from ops import models
from telemetry.logs import event

logger = logging.getLogger(__name__)

EVERY = 10.0  # seconds
_BATCH = 500
_MIGRATION = "_deletions"
"""How the name of the migration ends that made the table: the ledger begins with it."""

Period = tuple[datetime, datetime]


@dataclass
class Ledger:
    """Deletions, and the periods in which these are all."""

    deletions: dict[str, Deletion] = field(default_factory=dict)
    """Of each session the one with the latest id."""
    periods: list[Period] = field(default_factory=list)
    at: datetime = field(default_factory=now)
    """When it was read."""

    def add(self, found: Iterable[Deletion]) -> None:
        """Add those that have not expired."""
        for one in found:
            known = self.deletions.get(one.session)
            if one.expires_at > self.at and (known is None or known.upto < one.upto):
                self.deletions[one.session] = one

    def gaps(self, start: datetime) -> list[Period]:
        """Return the periods since then in which it does not know of every deletion."""
        gaps, end = [], self.at
        for since, until in sorted(self.periods):
            if since > start:
                gaps.append((start, min(since, end)))
            start = max(start, until)
            if start >= end:
                break
        if start < end:
            gaps.append((start, end))
        return [(since, until) for since, until in gaps if since < until]


def known() -> Ledger:
    """Return what the lines here and `default` know; without the latter where it cannot be read."""
    ledger = Ledger()
    ledger.add(deletions.noted())  # first: they may be moved meanwhile
    try:
        if (since := _begun()) is not None:
            ledger.add(_stored())
            ledger.periods.append((since, ledger.at))
    except DatabaseError as error:
        event(logger, logging.ERROR, "deletions_not_read", error=type(error).__name__)
    return ledger


def collect() -> None:
    """Move the lines of this machine to `default`, and drop there what has expired. Raise DatabaseError or OSError:
    what was not moved then stays, and the next call moves it."""
    for path in deletions.take():
        _move(path)
    models.Deletion.objects.filter(expires_at__lte=now()).delete()


def collect_if_possible() -> None:
    """Do as `collect`; that it could not be done is logged, and the service does it later."""
    try:
        collect()
    except (DatabaseError, OSError) as error:
        event(logger, logging.WARNING, "deletions_not_moved", error=type(error).__name__)


def start() -> None:
    """Do it from now on every few seconds, in a thread."""
    threading.Thread(target=_forever, name="ledger", daemon=True).start()


def _forever() -> None:
    while True:
        time.sleep(EVERY)
        close_old_connections()
        try:
            collect_if_possible()
        except Exception:  # it must go on, whatever happens
            logger.exception("deletions_not_moved")


def _move(path: Path) -> None:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:  # another process has moved it
        return
    for batch in batches(deletions.read(lines), _BATCH):
        models.Deletion.objects.bulk_create(map(_row, batch), ignore_conflicts=True)
    path.unlink(missing_ok=True)


def _row(one: Deletion) -> models.Deletion:
    return models.Deletion(session=one.session, upto=one.upto, at=one.at, expires_at=one.expires_at)


def _begun() -> datetime | None:
    """Return since when `default` has a ledger. A database that was made anew has a later time than the old one."""
    applied = MigrationRecorder.Migration.objects.filter(app="ops", name__endswith=_MIGRATION)
    return applied.values_list("applied", flat=True).first()


def _stored() -> Iterator[Deletion]:
    rows = models.Deletion.objects.values_list("session", "upto", "at", "expires_at")
    return (Deletion(*row) for row in rows.iterator())
