"""How long a request of each kind takes as a store begins to fail, where no breaker has opened yet.

    .venv/bin/python -m benchmarks.deadline [--rounds 3]

The stores stand behind proxies, and a slow one has 500 ms a round trip. All kinds are asked at once, each for a
conversation of its own. docs/guarantees.md quotes the figures.
"""

import argparse
from itertools import product

from tests.faults.requests import FAULTS, KINDS, during
from tests.faults.stack import Route, Setup, Stack


def slowest(stack: Stack, route: Route, alias: str, fault: str, rounds: int) -> list[float]:
    """Return the seconds of each kind, the slowest of the rounds."""
    found: list[list[float]] = []
    for _ in range(rounds):
        stack.make_quiet()
        stack.follow(route)
        answered = during(stack, alias, fault)
        assert answered["ask"].status == 200, answered["ask"].body
        found.append([answered[kind].seconds for kind in KINDS])
    return [max(each) for each in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    stack = Stack(Setup(workers=1))
    try:
        stack.start()
        print(f"| fault | routing | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 2)}")
        for primary, dual_write, fault, alias in product(("redis", "mongo"), (False, True), FAULTS, ("redis", "mongo")):
            route = Route(primary, dual_write)
            seconds = slowest(stack, route, alias, fault, rounds)
            print(f"| {alias} {fault} | {route} | {' | '.join(f'{each:.2f}' for each in seconds)} |", flush=True)
    finally:
        stack.stop()


if __name__ == "__main__":
    main()
