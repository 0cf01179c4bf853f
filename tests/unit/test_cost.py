"""An ask does not become slower unnoticed: what it costs is counted, not timed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import cost
from tests.servers import MongoServer, RedisServer

TOLERANCE = 0.1
RENEW = "`.venv/bin/python -m tests.cost` writes what it is now to tests/data/cost.json"


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


@pytest.mark.parametrize("case", cost.CASES)
def test_an_ask_costs_what_is_committed(case: str, tmp_path: Path, stores: tuple[str, str]) -> None:
    """One ask calls as many functions as the committed figure says, a tenth more or less."""
    committed = json.loads(cost.FIGURES.read_text())[case]
    calls = cost.calls_of_an_ask(case, *stores, tmp_path)
    assert calls <= committed * (1 + TOLERANCE), (
        f"an ask with {case} calls {calls} functions, {committed} before: find what is called more often than it needs"
        f" to be, or commit the higher figure with its reason ({RENEW})"
    )
    assert calls >= committed * (1 - TOLERANCE), (
        f"an ask with {case} calls {calls} functions only, {committed} before: commit the lower figure, so that it"
        f" stays so ({RENEW})"
    )
