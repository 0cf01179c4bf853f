"""What a failover asks before and after: whether stores answer, what stays behind, and what was copied."""

from collections.abc import Collection
from functools import partial

import orjson

from conversations.errors import CorruptHistory, StoreUnavailable
from conversations.policy import Routing
from conversations.runtime import switching
from conversations.runtime.pings import p95
from conversations.stores import bulk, store
from conversations.stores.batches import SHORT_PAUSES, retried
from conversations.stores.bulk_reader import Found
from ops.errors import NoServer, Refused
from ops.failover.report import LeftBehind
from ops.service import Service
from ops.status.pings import ping_ms
from ops.status.served import served_metrics, server_url

SLOW_MS = 50.0  # the runbook's limit


def target(alias: str, probe: str) -> str:
    """Return how the store answers, in words; with a `probe` that is written there, since one that is full or
    read-only answers every ping. Raise Refused when it cannot be used."""
    try:
        pings = retried(partial(ping_ms, alias), SHORT_PAUSES)
        if probe:
            store(alias).write_note("probe", probe)
    except StoreUnavailable as error:
        raise Refused(f"{alias} cannot be used ({error.reason}), so no traffic can go there") from error
    took = p95(pings)
    slow = f", slower than {SLOW_MS:.0f} ms" if took > SLOW_MS else ""
    return f"{alias} answers{' and takes writes' if probe else ''}, p95 {took:.1f} ms{slow}"


def outage(alias: str) -> str:
    """Return why the store does not answer, "" when it does."""
    try:
        retried(store(alias).ping, SHORT_PAUSES)
    except StoreUnavailable as error:
        return error.reason
    return ""


def left_behind(leaving: str, to: str, routing: Routing) -> LeftBehind:
    """Return what stays in the store that is out, as exactly as it can be known."""
    in_target = retried(bulk(to).estimate, SHORT_PAUSES)
    if not routing.dual_write:
        return LeftBehind(in_target, None)
    known = (served_metrics() or {}).get(("unsynced_conversations", leaving, ""))
    return LeftBehind(in_target, None if known is None else int(known))


def left_behind_in_words(lost: LeftBehind, leaving: str, to: str, routing: Routing) -> str:
    only = lost.only_in_leaving
    if routing.dual_write:
        count = "unknown, as no server answers" if only is None else f"{only} when a server last saw it"
        why = f"Dual write was on, so those are the conversations flagged there: {count}."
    else:
        why = "Dual write was off, so how many is unknown: the store is out."
    return (
        f"{leaving} is out: what only it has cannot be copied. {why} About {lost.in_target} conversations are in {to}. "
        f"Nothing is deleted: `reconcile --apply` repairs them when {leaving} is back."
    )


def problems(to: str, sample: Collection[str]) -> str:
    """Return what is wrong with where traffic goes now, "" for nothing: the newest switch, some of the conversations
    that were copied, and the store itself."""
    found = [
        f"the newest switch in {alias} is not this one"
        for alias, switch in switching.read().items()
        if switch is None or switch.routing.primary != to
    ]
    try:
        if not all(map(_is_there, bulk(to).contents(sample).values())):
            found.append(f"{to} does not give back what was copied")
        store(to).ping()
    except StoreUnavailable as error:
        found.append(f"{to} is out ({error.reason})")
    return "; ".join(found)


def server_in_words() -> str:
    """Return what /healthz on this machine reports; another service may answer there."""
    url = server_url()
    try:
        status, body = Service(url, seconds=2).call("GET", "/healthz")
        health = orjson.loads(body)
        return f"{url} reports {health['status']}, primary {health['primary']} ({status})"
    except (NoServer, ValueError, KeyError, TypeError):
        return f"no server of ours answers on {url}"


def _is_there(found: Found) -> bool:
    return not isinstance(found, CorruptHistory) and bool(found.history or found.tombstone)
