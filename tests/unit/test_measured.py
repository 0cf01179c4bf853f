"""A measured store is the store that it wraps."""

from conversations.stores.measured import MeasuredStore
from conversations.stores.memory import MemoryStore
from conversations.turns import History, Limits
from tests.builders import a_session, some_turns


def test_its_limits_are_those_of_the_store_it_wraps() -> None:
    inner = MemoryStore("redis", Limits(60, 16, 100_000))
    store, session, turns = MeasuredStore(inner, control=inner), a_session(), some_turns(5)
    store.limits = Limits(60, 2, 100_000)
    store.append(session, None, turns)
    assert store.load(session) == History.of(turns[-2:])
