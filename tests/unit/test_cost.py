"""An ask does not become slower unnoticed: what it costs is counted, not timed."""

from collections.abc import Iterator

import pytest

from tests import cost
from tests.cost import Cost
from tests.servers import MongoServer, RedisServer
from tests.slower import CHANGES

TOLERANCE = Cost(calls=0.01, sends=0.0, characters=0.01, allocated=0.02)
OF_TWO_THREADS = TOLERANCE._replace(calls=0.03)  # which of them waits, and how, is not the same each time
RENEW = "`.venv/bin/python -m tests.cost` writes what it is now to tests/data/cost.json"
pytestmark = pytest.mark.skipif(
    cost.committed() is None, reason=f"no figures of Python {cost.PYTHON} are committed: {RENEW}"
)


def more_than(figures: Cost, before: Cost, tolerance: Cost = TOLERANCE) -> list[str]:
    """Return what is more than the figures before and the tolerance."""
    return [
        name
        for name, now, then, part in zip(Cost._fields, figures, before, tolerance, strict=True)
        if now > then * (1 + part)
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two empty stores: where other tests have left flags, an ask reads both."""
    home = tmp_path_factory.mktemp("stores")
    redis, mongo = RedisServer(home / "redis"), MongoServer(home / "mongo")
    try:
        redis.start(), mongo.start()
        yield redis.url, mongo.url
    finally:
        redis.kill(), mongo.kill()


@pytest.fixture(scope="module")
def costs(stores: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """What asks cost now: of each case, and of the first one and over HTTP with each change that makes it slower."""
    return cost.measured(*stores, tmp_path_factory.mktemp("asks"), slower=list(CHANGES))


@pytest.mark.parametrize("case", cost.CASES)
def test_an_ask_costs_what_is_committed(case: str, costs: dict[str, Cost]) -> None:
    """One ask costs what the committed figures say, the tolerance more or less."""
    committed = (cost.committed() or {})[case]
    tolerance = OF_TWO_THREADS if cost.CASES[case].dual_write else TOLERANCE
    more, less = more_than(costs[case], committed, tolerance), more_than(committed, costs[case], tolerance)
    assert not more, (
        f"an ask with {case} takes more {' and '.join(more)}: {costs[case]}, and before {committed}. Find what is done"
        f" more often than it needs to be, or commit the higher figures with their reason ({RENEW})"
    )
    assert not less, (
        f"an ask with {case} takes less {' and '.join(less)}: {costs[case]}, and before {committed}. Commit the lower"
        f" figures, so that it stays so ({RENEW})"
    )


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ("every history validated", {"calls", "characters", "allocated"}),
        ("every history validated, in one call", {"characters"}),
        ("messages decoded twice", {"characters", "allocated"}),
        ("a serializer copied for each request", {"calls", "allocated"}),
        ("one more round trip", {"calls", "sends"}),
        ("ten more metrics", {"calls"}),
    ],
)
def test_what_makes_an_ask_slower_is_noticed(change: str, noticed: set[str], costs: dict[str, Cost]) -> None:
    """Each of these, made on purpose, takes an ask over the tolerance."""
    before = costs[cost.case_of(change)]
    assert noticed <= set(more_than(costs[change], before)), (costs[change], before)
