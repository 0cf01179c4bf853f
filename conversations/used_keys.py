"""Which Idempotency-Keys a conversation was asked with: each is kept for 24 hours, whether or not its turn still is."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from conversations.clock import now
from conversations.turns import Turn

LIFETIME = timedelta(hours=24)
MOST = 1_000  # of one conversation; the oldest go first

Keys = Mapping[str, int]
"""Each key with the time of its question, in milliseconds since 1970."""


def of_turns(turns: Iterable[Turn]) -> dict[str, int]:
    """Return the keys that these turns were asked with."""
    return {turn.question.key: asked_at(turn) for turn in turns if turn.question.key}


def asked_at(turn: Turn) -> int:
    return round(turn.question.time.timestamp() * 1000)


def unite(*several: Keys) -> dict[str, int]:
    """Return the keys of all of these that are kept; of one that is in several the latest time counts."""
    found: dict[str, int] = {}
    for keys in several:
        for key, at in keys.items():
            found[key] = max(at, found.get(key, 0))
    if not found:
        return found
    newest = sorted(found.items(), key=lambda one: one[1])[-MOST:]
    least = oldest()
    return {key: at for key, at in newest if at >= least}


def missing(held: Mapping[str, Keys]) -> dict[str, Keys]:
    """Return for each store that does not keep all the keys that any store keeps, which it is missing."""
    every = unite(*held.values())
    found = {alias: {key: at for key, at in every.items() if key not in keys} for alias, keys in held.items()}
    return {alias: keys for alias, keys in found.items() if keys}


def oldest() -> int:
    """Return the time before which keys are not kept any more."""
    return round((now() - LIFETIME).timestamp() * 1000)
