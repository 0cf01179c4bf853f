"""Plain functions with defaults that make what tests talk about."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from conversations import tokens
from conversations.turns import History, Turn, make_turn

_minutes = itertools.count()


def a_session() -> str:
    return f"test-{uuid4().hex}"


def a_turn(question: str = "What?", answer: str = "That.", *, at: datetime | None = None,
           key: str | None = None, user: str | None = None) -> Turn:  # fmt: skip
    """Return a turn later than every one made before it, unless `at` says otherwise."""
    time = at or datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=next(_minutes))
    return make_turn(question, answer, None, time, time, key, user)


def some_turns(number: int, size: int = 10) -> tuple[Turn, ...]:
    return tuple(a_turn(f"question {n}", "a" * size) for n in range(number))


def a_history(number: int = 2) -> History:
    return History.of(some_turns(number))


def make_token(name: str, tenant: str | None = None, days: int = 90, scopes: tuple[str, ...] = tokens.SCOPES) -> str:
    """Return a new token, which is recorded nowhere."""
    return tokens.issue(name, tenant, scopes, days)[1]
