"""One server for a module of tests, on the stores of the test process, with answers that a test can hold back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environment
from tests.faults.service import Service
from tests.server.answering import VARIABLE


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that holds answers back while it is there."""
    return tmp_path_factory.mktemp("held") / "hold"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, hold: Path) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("service")
    (home / "tmp").mkdir()
    variables = {
        "REDIS_URL": environment.REDIS.url,
        "MONGO_URL": environment.MONGO.url,
        "ANSWERER": "tests.server.answering.Held",
        "TMPDIR": str(home / "tmp"),
        VARIABLE: str(hold),
    }
    service = Service(home, **variables).start()
    try:
        service.wait()
        yield service
    finally:
        hold.unlink(missing_ok=True)
        service.stop()


def waiting(service: Service) -> float:
    """Return how many questions have read their history and are not answered yet."""
    return sum(service.metric("msg_count_before_count")) - sum(service.metric("answer_duration_seconds_count"))
