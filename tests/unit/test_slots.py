"""So many requests run at a time; waiting for a model does not count."""

import threading
from collections.abc import Callable

import pytest

from conversations.slots import Slots
from tests.servers import eventually


@pytest.fixture
def slots() -> Slots:
    return Slots(1)


def started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def waiting(slots: Slots) -> int:
    return len(slots._new) + len(slots._returning)


def test_a_slot_goes_to_those_that_had_one_and_then_in_order(slots: Slots) -> None:
    order: list[str] = []
    asking, model_answers = threading.Event(), threading.Event()

    def asked() -> None:
        with slots.taken():
            with slots.lent():
                asking.set()
                model_answers.wait()
            order.append("answered")

    def new(name: str) -> None:
        with slots.taken():
            order.append(name)

    threads = [started(asked)]
    asking.wait()
    with slots.taken():
        for name in ("first", "second"):
            threads.append(started(lambda name=name: new(name)))  # type: ignore[misc]
            eventually(lambda: waiting(slots) == len(threads) - 1, "it does not wait")
        model_answers.set()
        eventually(lambda: waiting(slots) == 3, "it does not wait")
        assert order == []
    for thread in threads:
        thread.join()
    assert order == ["answered", "first", "second"]
    assert slots._free == 1


def test_a_thread_without_a_slot_has_none_to_lend(slots: Slots) -> None:
    with slots.lent():
        assert slots._free == 1
    assert slots._free == 1


def test_an_error_frees_the_slot(slots: Slots) -> None:
    with pytest.raises(KeyError), slots.taken(), slots.lent():
        raise KeyError
    assert slots._free == 1
