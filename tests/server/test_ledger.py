"""Deletions of a real server, with `default` and stores of its own: both stores are lost, and what was deleted stays
deleted."""

import http.client
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conversations.stores import ALIASES
from ops.backup import deletions
from tests.builders import a_session
from tests.faults.service import PATIENCE
from tests.server.deployment import Deployment
from tests.servers import eventually


class WithBackups(Deployment):
    """A service whose operator makes backups."""

    @property
    def backups(self) -> Path:
        return self.home / "backups"

    def ask(self, session: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=10)
        body = json.dumps({"question": "Remember this", "session_id": session})
        with closing(connection):
            connection.request("POST", "/api/chat/ask", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200

    def status(self, session: str, method: str = "GET") -> int:
        return self.service.request(method, f"/api/chat/conversations/{session}/")[0]

    def back_up(self) -> str:
        code, report = self.manage("backup", "--to", str(self.backups))
        assert code == 0, report
        return str(report["file"])

    def in_default(self, session: str) -> bool:
        """Return whether `default` has the deletion, by nothing of ours."""
        with closing(sqlite3.connect(f"file:{self.default}?mode=ro", uri=True)) as database:
            rows = database.execute("select count(*) from ops_deletion where session = ?", [session])
            return bool(rows.fetchone()[0])

    def lose_both_stores(self) -> None:
        """Lose all of them while the service runs, tombstones and identities too."""
        with self.redis.client() as redis, self.mongo.client() as mongo:
            redis.flushall()
            database = mongo.get_default_database()
            for name in database.list_collection_names():
                database[name].delete_many({})


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithBackups]:
    deployment = WithBackups(tmp_path_factory.mktemp("ledger"))
    try:
        yield deployment.start()
    finally:
        deployment.stop()


def two(deployment: WithBackups) -> tuple[str, str]:
    """Return two sessions that were asked for, and are stored."""
    sessions = a_session(), a_session()
    for session in sessions:
        deployment.ask(session)
    return sessions


def is_restored(deployment: WithBackups, report: dict[str, Any], gone: str, kept: str) -> None:
    assert all(report["stores"][alias]["left_out"] == 1 for alias in ALIASES), report
    for _ in range(10):  # both workers
        assert deployment.status(gone) == 404
    eventually(lambda: deployment.status(kept) == 200, "it was not restored")


def test_the_service_moves_a_deletion_to_default_and_a_restore_honours_it(deployment: WithBackups) -> None:
    gone, kept = two(deployment)
    path = deployment.back_up()
    assert deployment.status(gone, "DELETE") == 204
    eventually(lambda: deployment.in_default(gone), "the service did not move it", PATIENCE)
    (deployment.backups / deletions.NAME).unlink()  # `default` alone knows
    deployment.lose_both_stores()
    code, report = deployment.manage("restore", path, "--into", "both")
    assert (code, report["may_come_back"]) == (0, [])
    is_restored(deployment, report, gone, kept)


def test_a_service_that_was_killed_moves_it_when_it_is_started_again(deployment: WithBackups) -> None:
    """The deletion was answered, and in a file of VAR_DIR then."""
    gone, kept = two(deployment)
    path = deployment.back_up()
    assert deployment.status(gone, "DELETE") == 204
    deployment.service.kill()
    deployment.service.start().wait()
    eventually(lambda: deployment.in_default(gone), "the service did not move it", PATIENCE)
    deployment.lose_both_stores()
    code, report = deployment.manage("restore", path, "--into", "both")
    assert (code, report["may_come_back"]) == (0, [])
    is_restored(deployment, report, gone, kept)


def test_beside_the_archives_it_is_known_where_default_is_lost_too(deployment: WithBackups) -> None:
    """By a later backup. Of the time since then nothing is known, which restore tells."""
    gone, kept = two(deployment)
    path = deployment.back_up()
    assert deployment.status(gone, "DELETE") == 204
    deployment.back_up()
    deployment.lose_both_stores()
    code, report = deployment.manage("restore", path, "--into", "both", default=deployment.home / "new.sqlite3")
    assert (code, len(report["may_come_back"])) == (1, 1)
    is_restored(deployment, report, gone, kept)
