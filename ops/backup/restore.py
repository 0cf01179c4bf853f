"""Bringing conversations back from a backup: merged, or replaced, and never what was deleted."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Self

from django.db import connections

from conversations.clock import now
from conversations.errors import StoreUnavailable
from conversations.merge import unite
from conversations.stores import ALIASES, bulk, control, limits, reachable
from conversations.stores.bulk import BulkStore, Put, Share
from conversations.stores.sessions import is_of
from conversations.turns import History, Limits
from ops.backup.archive import Archive
from ops.backup.record import Record, counted, in_batches
from ops.errors import NothingOfTenant
from ops.ledger import Ledger, Period
from ops.long_work import Advance

_PAGE = 1_000  # tombstones

BATCH = 500


@dataclass
class Restored:
    """What became of the conversations of a backup in one store."""

    put: Put = Put()
    expired: int = 0
    deleted: int = 0
    """Those of which nothing came back, since they had been deleted."""
    left_out: int = 0
    """The turns of the backup's records that did not come back, since they had been deleted."""
    other_tenants: int = 0
    """The conversations of the backup that are not the tenant's which was asked for: they stay as they are."""

    def as_dict(self) -> dict[str, int]:
        """Return it for machines."""
        counts = {**asdict(self), **asdict(self.put)}
        names = ("created", "merged", "replaced", "expired", "deleted", "left_out", "other_tenants", "corrupt")
        return {name: counts[name] for name in names}


@dataclass
class Plan:
    """What must not come back, gathered before anything changes."""

    tombstones: dict[str, str] = field(default_factory=dict)
    own: dict[str, set[str]] = field(default_factory=lambda: {alias: set() for alias in ALIASES})
    """For --replace: the sessions that the backup has of each store itself."""
    tenant: str | None = None
    """Whose sessions these are alone: "" for those of no tenant, None for all."""
    others: set[str] = field(default_factory=set)
    """The sessions of other tenants."""

    @property
    def sessions(self) -> set[str]:
        """All that the backup has."""
        return set().union(*self.own.values())

    def add_tombstone(self, session: str, tombstone: str) -> None:
        self.tombstones[session] = max(self.tombstones.get(session, ""), tombstone)


def restore(
    archive: Archive,
    aliases: Iterable[str],
    ledger: Ledger,
    *,
    replaces: bool,
    advance: Advance,
    tenant: str | None = None,
) -> dict[str, Restored]:
    """Give the stores what the backup has, with a tenant what it has of that one, but for what was deleted as a store
    or the ledger knows; return what became of it in each.

    Raise BadBackup or NothingOfTenant before anything has changed, StoreUnavailable when a store goes out; what was
    restored by then stays, and the rest is restored by doing it again.
    """
    plan = check(archive, advance, tenant)
    if tenant is not None and not plan.sessions:
        raise NothingOfTenant(tenant or "(none)")
    for alias in reachable():
        for page in bulk(alias).tombstones(_PAGE):
            for session, tombstone in page.items():
                plan.add_tombstone(session, tombstone)
    for session in plan.sessions & ledger.deletions.keys():
        plan.add_tombstone(session, ledger.deletions[session].upto)
    age = archive.age(now())
    return {alias: _restore(archive, alias, plan, age, replaces, advance) for alias in aliases}


def gaps(archive: Archive, ledger: Ledger) -> list[Period]:
    """Return the periods since the backup of which nothing tells what was deleted; to be asked before the restore. A
    store that is as it was then knows it: a deletion reaches every store, by repair where one was out."""
    for alias in reachable():
        with suppress(StoreUnavailable):
            dataset = control(alias).report().dataset
            if dataset and dataset.id == archive.manifest.datasets.get(alias):
                return []
    return ledger.gaps(archive.manifest.created)


def _restore(archive: Archive, alias: str, plan: Plan, age: int, replaces: bool, advance: Advance) -> Restored:
    restored = Restored(other_tenants=len(plan.others))
    records: Iterable[Record] = counted(archive.records(once=not replaces), advance, archive.lines)
    records = (record for record in records if is_of(record.session, plan.tenant))
    if replaces:
        records = _preferred(records, alias, plan)
    with Putting(bulk(alias), replaces) as putting:
        for batch in in_batches(records, BATCH):
            putting.put(_shares(batch, plan.tombstones, age, limits(), restored))
    restored.put = putting.total
    return restored


def check(archive: Archive, advance: Advance, tenant: str | None = None) -> Plan:
    """Read every byte of the backup; return its tombstones and what it has of which store, with a tenant those of that
    one. Raise BadBackup."""
    plan = Plan(tenant=tenant)
    archive.check_seal()
    archive.check_dump()
    for record in counted(archive.heads(), advance, archive.lines):
        if not is_of(record.session, tenant):
            plan.others.add(record.session)
            continue
        plan.own[record.store].add(record.session)
        if record.tombstone:
            plan.add_tombstone(record.session, record.tombstone)
    return plan


class Putting:
    """Puts a batch while the next ones are read: one at a time, in order, and at most two waiting."""

    def __init__(self, store: BulkStore, replaces: bool = False) -> None:
        self.total = Put()
        self._store, self._replaces = store, replaces
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[Put]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        while self._waiting and kind is None:
            self.total += self._waiting.popleft().result()

    def put(self, shares: list[Share]) -> None:
        """Put them soon; raise what an earlier batch raised."""
        self._waiting.append(self._pool.submit(self._put, shares))
        if len(self._waiting) > 2:
            self.total += self._waiting.popleft().result()

    def _put(self, shares: list[Share]) -> Put:
        try:
            return self._store.put(shares, replace=self._replaces)
        finally:
            connections.close_all()  # Django's are a thread's own


def _preferred(records: Iterable[Record], alias: str, plan: Plan) -> Iterator[Record]:
    """Return of each session the store's own record; the other store's where the backup has no own one."""
    for record in records:
        if record.store == alias or record.session not in plan.own[alias]:
            yield record


def _shares(
    records: list[Record], tombstones: dict[str, str], age: int, most: Limits, restored: Restored
) -> list[Share]:
    """Return what the records have to give, of each session one, and count those that have nothing."""
    shares: dict[str, Share] = {}
    for record in records:
        share = _share(record, tombstones.get(record.session, ""), age, most, restored)
        before = shares.get(record.session)
        shares[record.session] = _united(before, share) if before else share
    return list(shares.values())


def _share(record: Record, tombstone: str, age: int, most: Limits, restored: Restored) -> Share:
    # What had no TTL counts from the backup too: it must not come back when its tombstone has expired.
    ttl = (most.ttl if record.ttl is None else record.ttl) - age
    turns = record.history.after(tombstone).turns()
    restored.left_out += len(record.history) // 2 - len(turns)
    if record.history and not turns:
        restored.deleted += 1
    elif record.history and ttl <= 0:
        restored.expired += 1
        turns = ()
    return Share(record.session, turns, ttl, tombstone)


def _united(one: Share, other: Share) -> Share:
    turns = unite(History.of(one.turns), History.of(other.turns)).turns()
    return replace(one, turns=turns, ttl=max(one.ttl, other.ttl))
