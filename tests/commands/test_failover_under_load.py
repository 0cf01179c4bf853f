"""`failover` and `failback` while clients ask."""

import json
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings

from ops.failover import move
from tests.commands.working import run_json
from tests.faults.clients import Load, Talk
from tests.faults.service import Service
from tests.servers import MongoServer, RedisServer, eventually

pytestmark = pytest.mark.usefixtures("both_empty")


def test_under_load_nothing_fails_and_nothing_is_lost(
    tmp_path: Path, redis_server: RedisServer, mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failover, Redis killed, Redis back, failback: while four clients ask."""
    monkeypatch.setattr(move, "FOLLOW_SECONDS", 2.5)
    service = Service(tmp_path / "service", REDIS_URL=redis_server.url, MONGO_URL=mongo_server.url,
                      REDIS_SENTINEL_PASSWORD=settings.REDIS_SENTINEL_PASSWORD, REDIS_SOCKET_TIMEOUT_MS="200",
                      WEB_CONCURRENCY="1")  # fmt: skip
    try:
        service.start().wait()
        load = Load("failover", [service.port], clients=8, sessions_each=1, sharing=1, pause=0.05)
        load.start()
        code, report = run_json("failover", "--to", "mongo")
        assert (code, report["differences"]) == (0, 0), report
        redis_server.kill()
        eventually(lambda: not service.uses_both(), "the server does not notice")
        redis_server.start()
        eventually(service.uses_both, "the server does not recover")
        code, report = run_json("failback")
        assert (code, report["differences"]) == (0, 0), report
        load.stop()
        for talk in load.talks:  # a call that took too long under this load has left its turn to repair
            eventually(partial(has_all, redis_server, talk), "a turn is lost")
    finally:
        service.stop()
    asks = [ask for talk in load.talks for ask in talk.asks]
    assert [ask.error for ask in asks if ask.error] == []
    assert len(asks) > 100


def has_all(server: RedisServer, talk: Talk) -> bool:
    """Return whether Redis has exactly the turns that were acknowledged; more than a reader sees with our limits."""
    acknowledged = [ask.body["answer"] for ask in talk.asks]
    with server.client() as client:
        lines = (client.get(f"conv:{talk.session}") or b"").splitlines()
    return [json.loads(line)["content"] for line in lines[1::2]] == acknowledged
