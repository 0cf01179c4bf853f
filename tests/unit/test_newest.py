"""What turns have left for the list is taken once, by whichever thread comes first."""

import sys
import threading
from typing import Any

from conversations.stores.redis.newest import _taken


def take(noted: dict[str, Any], taken: list[dict[str, Any]]) -> None:
    taken.append(_taken(noted))


def test_two_threads_take_all_of_it_and_nothing_twice() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            noted: dict[str, Any] = {str(number): number for number in range(2_000)}
            taken: list[dict[str, Any]] = []
            threads = [threading.Thread(target=take, args=(noted, taken)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sum(map(len, taken)) == 2_000
            assert {**taken[0], **taken[1]} == {str(number): number for number in range(2_000)}
    finally:
        sys.setswitchinterval(before)
