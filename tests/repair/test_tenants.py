"""TENANT_MAX_BYTES: counted beside the requests, over real stores."""

import json
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from conversations import clock
from conversations.background import tenants as counting
from conversations.runtime import gauges, pings, tenants
from conversations.stores import ALIASES, REDIS, bulk, control, store, write_note
from conversations.stores.sessions import session_named
from tests import round_trips
from tests.api.talking import ask, delete, get, post, sample
from tests.api.test_errors import refused
from tests.builders import a_session, make_token, some_turns
from tests.commands.working import run, run_json
from tests.servers import RedisServer, eventually

LIMIT = 4000
QUESTION = {"question": "What is Redis?"}


@pytest.fixture(autouse=True)
def _limited(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gauges.start()
    settings.CHAT_AUTH, settings.CHAT_RATE, settings.TENANT_MAX_BYTES = "token", "", LIMIT
    monkeypatch.setattr(counting, "_walk", None)
    monkeypatch.setattr(tenants, "_full", frozenset())
    write_note(tenants.NOTE, "")
    pings.look(5.0)
    yield
    write_note(tenants.NOTE, "")


def headers(tenant: str, name: str = "somebody") -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(name, tenant)}"}


def hold(tenant: str, size: int = LIMIT, session: str = "") -> str:
    """Have a conversation of a tenant take at least so many bytes; return its session_id."""
    session = session or a_session()
    for alias in ALIASES:
        store(alias).append(session_named(session, tenant), None, some_turns(1, size))
    return session


def counted() -> None:
    """Count, as one process does every few minutes."""
    counting._walk = None
    write_note(tenants.NOTE, "")
    eventually(lambda: not counting.step() and (tenants.newest() or tenants.Use()).at, "it is not counted")


def test_an_ask_of_a_full_tenant_is_refused_before_the_model_is_asked() -> None:
    tenant = a_session()
    hold(tenant)
    counted()
    before = sample("answer_duration_seconds_count"), sample("requests_limited_total", limit="tenant")
    refused(post(QUESTION, **headers(tenant)), 413, "tenant_full")
    refused(post(QUESTION | {"stream": True}, **headers(tenant)), 413, "tenant_full")
    turn = {"question": "What?", "answer": "That."}
    path = f"/api/chat/conversations/{a_session()}/turns"
    refused(post(turn, path, **headers(tenant)), 413, "tenant_full")
    after = sample("answer_duration_seconds_count"), sample("requests_limited_total", limit="tenant")
    assert after == (before[0], before[1] + 3)


def test_another_tenant_with_the_same_session_and_name_is_not_refused() -> None:
    full, other, session = a_session(), a_session(), a_session()
    for tenant, size in ((full, LIMIT), (other, 10)):
        hold(tenant, size, session)
    counted()
    question = QUESTION | {"session_id": session}
    assert post(question, **headers(full)).status_code == 413
    assert post(question, **headers(other)).status_code == 200


def test_a_full_tenant_reads_exports_and_deletes_and_then_asks_again() -> None:
    tenant = a_session()
    session = hold(tenant)
    counted()
    assert get("conversations/", **headers(tenant)).status_code == 200
    assert get(f"conversations/{session}/export", **headers(tenant)).status_code == 200
    assert delete(f"conversations/{session}/", **headers(tenant)).status_code == 204
    assert post(QUESTION, **headers(tenant)).status_code == 413  # as it was counted
    counted()
    ask("What is Redis?", headers=headers(tenant))


def test_many_small_conversations_are_added_up() -> None:
    tenant = a_session()
    for _ in range(12):
        hold(tenant, 200)
    counted()
    use = tenants.newest()
    assert use and use.bytes[tenant] == sum(
        size
        for page in bulk(REDIS).all_sizes(100)
        for session, size in page.items()
        if session.startswith(f"{tenant}:")
    )
    assert tenant in use.full


def test_those_of_no_tenant_are_a_tenant_too(settings: Settings) -> None:
    hold("")
    counted()
    settings.CHAT_AUTH = "open"
    refused(post(QUESTION), 413, "tenant_full")


def test_without_the_setting_nothing_is_counted_or_refused(settings: Settings) -> None:
    tenant = a_session()
    hold(tenant)
    settings.TENANT_MAX_BYTES = ""
    with round_trips.to_redis() as sent:
        assert not counting.step()
        tenants.follow()
    assert sent == []
    assert post(QUESTION, **headers(tenant)).status_code == 200


def test_an_ask_pays_nothing_for_it() -> None:
    tenant = a_session()
    session = ask("What is Redis?", headers=headers(tenant))["session_id"]
    ask("A second time?", session, headers=headers(tenant))  # the scripts are there
    with round_trips.to_redis() as sent:
        ask("And?", session, headers=headers(tenant))
    assert len(sent) == 2


def test_every_process_learns_it_from_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = a_session()
    hold(tenant)
    counted()
    monkeypatch.setattr(tenants, "_full", frozenset())  # another process
    tenants.follow()
    assert post(QUESTION, **headers(tenant)).status_code == 413
    assert sample("tenants_full") >= 1
    assert sample("tenants_near_full") >= sample("tenants_full")


def test_with_redis_killed_the_other_store_is_counted_and_read(redis_server: RedisServer) -> None:
    tenant = a_session()
    hold(tenant)
    redis_server.kill()
    try:
        pings.look(5.0)
        counted()
        tenants.follow()
        assert post(QUESTION, **headers(tenant)).status_code == 413
    finally:
        redis_server.start()
    pings.look(5.0)


def test_it_is_counted_again_only_after_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted()
    with round_trips.to_redis() as sent:
        assert not counting.step()
    assert sent == ["GET"]
    monkeypatch.setattr(counting, "EVERY", 0.0)
    with round_trips.to_redis() as sent:
        counting.step()
    assert "SCAN" in sent


def test_one_process_counts_at_a_time() -> None:
    alias = counting.state().routing.order[0]
    control(alias).release(tenants.NOTE, counting.PROCESS)  # of the tests before
    assert control(alias).lease(tenants.NOTE, "another", 60)
    try:
        assert not counting.step()
        assert counting._walk is None and (tenants.newest() or tenants.Use()).at == 0.0
    finally:
        control(alias).release(tenants.NOTE, "another")


@pytest.mark.parametrize("text", ["{", "[]", '{"at": "x", "bytes": {}}', '{"at": 1, "bytes": {"a b": 99999999}}'])
def test_what_another_program_has_noted_refuses_nobody(text: str) -> None:
    write_note(tenants.NOTE, text)
    tenants.follow()
    assert tenants._full == frozenset()


def test_an_old_result_refuses_nobody() -> None:
    tenant = a_session()
    write_note(tenants.NOTE, json.dumps({"at": clock.timestamp() - 3601, "bytes": {tenant: LIMIT}}))
    tenants.follow()
    tenants.check(tenant)


def test_only_the_largest_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MOST", 2)
    tenants.note({"a": LIMIT, "b": 3 * LIMIT, "c": 2 * LIMIT, "d": int(LIMIT * tenants.NEAR) - 1})
    use = tenants.newest()
    assert use and list(use.bytes.items()) == [("b", 3 * LIMIT), ("c", 2 * LIMIT)]


def test_status_names_those_near_the_limit() -> None:
    tenants.note({"one": LIMIT, "two": int(LIMIT * 0.9), "": int(LIMIT * 0.85), "three": 10})
    _, report = run_json("status")
    assert report["tenants"]["bytes"] == {"one": LIMIT, "two": int(LIMIT * 0.9), "": int(LIMIT * 0.85)}
    _, output = run("status")
    assert "tenants near full" in output and "one 100%, two 90%, (none) 85%; counted 0.0 hours ago" in output


def test_status_without_the_setting_has_no_such_row(settings: Settings) -> None:
    settings.TENANT_MAX_BYTES = ""
    assert "tenants" not in run("status")[1]
