"""Revoked tokens: every process knows them all, in its memory, so that a request asks no store for one.

They are noted in both stores, for every machine, and in VAR_DIR, for a process that starts while both stores are out.
What is known is the union of all three, and is written again wherever a part of it is missing: a store that comes back
empty or older than it was takes back no revocation.
"""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

import orjson
from django.conf import settings

from conversations import clock
from conversations.errors import StoreUnavailable
from conversations.runtime.datasets import PROCESS
from conversations.stores import ALIASES, control
from conversations.turns import SESSION_ID
from telemetry.logs import event

logger = logging.getLogger(__name__)

NOTE = "revoked_tokens"
"""The name of the note, in each store, and of the file."""
FILE = "VAR_DIR"
"""The name of the third place."""
EVERY = 0.5  # seconds between two looks: with the stores' timeouts less than two
MOST = 10_000
"""How many may be revoked and not expired: each process reads the note, of 30 bytes each, twice a second."""
_KEPT = 86_400  # seconds for which an expired one is kept: a clock may be wrong
_LEASE_SECONDS = 2.0
_PATIENCE = 3.0  # seconds that a command waits for another one who writes

Ids = dict[str, int]
"""The ids of tokens, with the Unix time when each expires."""

_known: Ids = {}
_changing = Lock()
_writing = Lock()
"""Held while this process writes a note: the lease is the process', and two of its threads would both have it."""


def is_revoked(identity: str) -> bool:
    """Return whether the token of that id is known to be revoked."""
    return identity in _known


def known() -> Ids:
    """Return all that are known."""
    return dict(_known)


def follow() -> None:
    """Learn what is noted, and note it where a part is missing."""
    for place, found in look().items():
        if _known.keys() - found.keys():
            with suppress(StoreUnavailable):
                _note(place)


def look() -> dict[str, Ids]:
    """Return what each place that can be read has, and know it from now on."""
    found = {}
    for place in (FILE, *ALIASES):
        try:
            found[place] = _read(place)
        except StoreUnavailable:
            continue
        _learn(found[place])
    _forget_expired()
    return found


def revoke(ids: Ids) -> dict[str, bool]:
    """Know the tokens to be revoked, and note it everywhere; return for each place whether it is noted there.

    The other processes follow within two seconds. A place that could not take it gets it from any of them."""
    look()
    _learn(ids)
    return {place: _noted(place, ids) for place in (*ALIASES, FILE)}


def is_full(ids: Ids) -> bool:
    """Return whether there is no room for these too."""
    return len({**_known, **ids}) > MOST


def _noted(place: str, ids: Ids) -> bool:
    """Note what is known; return whether the place has these ids then."""
    deadline = time.monotonic() + _PATIENCE
    try:
        while not _note(place) and time.monotonic() < deadline:
            time.sleep(0.05)
        return ids.keys() <= _read(place).keys()
    except StoreUnavailable:
        return False


def _note(place: str) -> bool:
    """Add what is known to what the place has; return whether that was done, False while another process does it: two
    that read and write at once would lose what one of them adds. Raise StoreUnavailable."""
    if place == FILE:
        with _writing:
            _write_file()
        return True
    one = control(place)
    with _writing:
        if not one.lease(NOTE, PROCESS, _LEASE_SECONDS):
            return False
        try:
            _learn(_read(place))
            one.write_note(NOTE, orjson.dumps(_known).decode())
        finally:
            with suppress(StoreUnavailable):
                one.release(NOTE, PROCESS)
    return True


def _read(place: str) -> Ids:
    """Return what is noted there; raise StoreUnavailable."""
    return _parsed(place, _read_file() if place == FILE else control(place).note(NOTE))


def _parsed(place: str, text: str | bytes | None) -> Ids:
    """Return the ids; none where there is no note, or where it cannot be read, which is logged: it is written again."""
    if not text:
        return {}
    try:
        found = {str(identity): int(until) for identity, until in orjson.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        event(logger, logging.ERROR, "revoked_tokens_unreadable", place=place)
        return {}
    return _lasting({identity: until for identity, until in found.items() if SESSION_ID.fullmatch(identity)})


def _learn(ids: Ids) -> None:
    global _known
    if ids.items() <= _known.items():
        return
    with _changing:
        _known = {**_known, **{identity: max(until, _known.get(identity, 0)) for identity, until in ids.items()}}


def _forget_expired() -> None:
    global _known
    with _changing:
        _known = _lasting(_known)


def _lasting(ids: Ids) -> Ids:
    """Return those that are not refused anyway, since they have expired."""
    oldest = clock.timestamp() - _KEPT
    return {identity: until for identity, until in ids.items() if until > oldest}


def _file() -> Path:
    return Path(settings.VAR_DIR) / "run" / NOTE


def _read_file() -> bytes:
    try:
        return _file().read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        event(logger, logging.ERROR, "revoked_tokens_unreadable", place=FILE, error=type(error).__name__)
        return b""


def _write_file() -> None:
    draft = _file().with_name(f"{NOTE}.{os.getpid()}")
    try:
        _file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _learn(_read(FILE))
        draft.write_bytes(orjson.dumps(_known))
        draft.replace(_file())
    except OSError as error:  # a full disk must not stop what follows: the stores have the note too
        event(logger, logging.ERROR, "revoked_tokens_not_noted", error=type(error).__name__)
