"""Reading, listing, exporting and deleting conversations over HTTP."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from pytest_django import Settings

from conversations.background import lists
from conversations.clock import now
from conversations.datasets import Coverage
from conversations.history import listing
from conversations.ids import stamp
from conversations.runtime import state
from conversations.stores import ALIASES, MONGO, REDIS, store
from conversations.stores.control import LISTED
from conversations.stores.redis.keys import TENANTS, newest_key, note_key
from conversations.stores.redis.turns import CacheStore
from tests import environment
from tests.api.talking import ask, contents, delete, get, list_anew, post
from tests.builders import a_session, a_turn, make_token, some_turns
from tests.round_trips import to_mongo, to_redis
from tests.servers import MongoServer, RedisServer


def a_tenant(settings: Settings, name: str = "") -> dict[str, str]:
    """Return the header of a new tenant, whose lists have only this test's conversations."""
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""
    return {"Authorization": f"Bearer {make_token('tester', name or a_session())}"}


def listed(headers: dict[str, str], limit: int = 50) -> list[dict[str, object]]:
    """Return every conversation of the list, page by page."""
    found: list[dict[str, object]] = []
    page = get(f"conversations/?limit={limit}", **headers).json()
    while page["next"]:
        found += page["results"]
        page = get(f"conversations/?limit={limit}&cursor={page['next']}", **headers).json()
    return found + list(page["results"])


class TestSlash:
    @pytest.mark.parametrize("path", ["conversations", "conversations/{}", "conversations/{}/export"])
    def test_the_trailing_slash_is_optional(self, path: str) -> None:
        session = a_session()
        ask("What is Redis?", session)
        for slash in ("", "/"):
            assert get(path.format(session) + slash).status_code == 200

    def test_the_trailing_slash_is_optional_for_asking(self) -> None:
        """A redirect would lose the body."""
        for path in ("/api/chat/ask", "/api/chat/ask/"):
            assert post({"question": "What is Redis?", "session_id": a_session()}, path).status_code == 200

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_the_trailing_slash_is_optional_for_deleting(self, slash: str) -> None:
        session = a_session()
        ask("What is Redis?", session)
        assert delete(f"conversations/{session}{slash}").status_code == 204


class TestReading:
    def test_messages_are_returned_oldest_first(self) -> None:
        session = a_session()
        first = ask("What is Redis?", session, headers={"Idempotency_Key": "k-1"})
        second = ask("What did I just ask?", session)
        conversation = get(f"conversations/{session}/").json()
        assert (conversation["session_id"], conversation["store"]) == (session, "redis")
        assert [message["role"] for message in conversation["messages"]] == ["user", "assistant"] * 2
        assert [message["id"] for message in conversation["messages"][1::2]] == [
            first["message_id"],
            second["message_id"],
        ]
        assert list(conversation["messages"][0]) == ["role", "content", "key", "id", "at"]
        assert conversation["messages"][0]["key"] == "k-1"

    def test_messages_are_those_in_redis(self) -> None:
        """The runbook's `GET conv:...` shows the same."""
        session = a_session()
        ask("What is Redis?", session)
        with environment.REDIS.client() as client:
            lines = client.get(f"conv:{session}").splitlines()  # type: ignore[union-attr]
        assert [json.loads(line) for line in lines] == get(f"conversations/{session}/").json()["messages"]

    def test_a_conversation_only_in_mongo_is_found(self) -> None:
        session = a_session()
        store(MONGO).append(session, a_turn("What is Redis?"))
        conversation = get(f"conversations/{session}/").json()
        assert (conversation["store"], conversation["messages"][0]["content"]) == ("mongo", "What is Redis?")

    def test_an_unknown_conversation_is_404(self) -> None:
        response = get(f"conversations/{a_session()}/", X_Request_ID="r-1")
        assert response.status_code == 404
        assert response.json() == {"code": "not_found", "detail": "No such conversation.", "request_id": "r-1"}

    def test_while_redis_is_down_mongo_answers(self, settings: Settings, redis_server: RedisServer) -> None:
        settings.CONV_DUAL_WRITE = True
        session = a_session()
        ask("What is Redis?", session)
        redis_server.kill()
        try:
            conversation = get(f"conversations/{session}/").json()
        finally:
            redis_server.start()
        assert (conversation["store"], len(conversation["messages"])) == ("mongo", 2)

    def test_while_redis_is_down_context_is_behind(self, redis_server: RedisServer) -> None:
        session = a_session()
        ask("What is Redis?", session)
        assert get(f"conversations/{session}/").json()["context"] == "full"
        redis_server.kill()
        try:
            ask("And?", session)
            conversation = get(f"conversations/{session}/").json()
        finally:
            redis_server.start()
        assert (conversation["store"], conversation["context"], len(conversation["messages"])) == ("mongo", "behind", 2)

    def test_while_redis_is_down_an_unknown_conversation_is_503(self, redis_out: None) -> None:
        """An outage is never read as emptiness."""
        response = get(f"conversations/{a_session()}/")
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")

    def test_a_store_that_holds_every_conversation_knows_which_there_is_not(
        self, settings: Settings, redis_server: RedisServer
    ) -> None:
        settings.CONV_DUAL_WRITE = True
        state.forget()
        ask("What?", deleted := a_session())
        delete(f"conversations/{deleted}/")
        redis_server.kill()
        try:
            assert [get(f"conversations/{each}/").status_code for each in (deleted, a_session())] == [404, 404]
        finally:
            redis_server.start()

    def test_a_store_that_does_not_hold_every_conversation_does_not(self, mongo_server: MongoServer) -> None:
        state.state().known.coverage = Coverage()
        mongo_server.kill()
        try:
            assert get(f"conversations/{a_session()}/").status_code == 503
        finally:
            mongo_server.start()

    def test_with_both_stores_down_reading_is_503(self, redis_out: None, mongo_out: None) -> None:
        for path in (f"conversations/{a_session()}/", "conversations/", f"conversations/{a_session()}/export"):
            response = get(path)
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")


class TestDeleting:
    @pytest.mark.parametrize("dual_write", [False, True])
    def test_a_deleted_conversation_is_gone_from_both_stores(self, settings: Settings, dual_write: bool) -> None:
        settings.CONV_DUAL_WRITE = dual_write
        session = a_session()
        ask("What is Redis?", session)
        assert (delete(f"conversations/{session}/").status_code, get(f"conversations/{session}/").status_code) == (
            204,
            404,
        )
        assert [store(alias).load(session) for alias in (REDIS, MONGO)] == [None, None]

    @pytest.mark.parametrize("dual_write", [False, True])
    def test_a_deletion_takes_three_round_trips_to_mongo(self, settings: Settings, dual_write: bool) -> None:
        """A deletion ends within two seconds, even if each round trip to MongoDB takes half a second."""
        settings.CONV_DUAL_WRITE = dual_write
        session = a_session()
        ask("What is Redis?", session)
        with to_mongo() as sent:
            delete(f"conversations/{session}/")
        assert sent == ["find", "delete", "findAndModify"]

    def test_while_redis_is_down_a_deletion_takes_no_more_round_trips(
        self, settings: Settings, redis_out: None
    ) -> None:
        """The deletion itself sets the unsynced flag."""
        session = a_session()
        store(MONGO).append(session, a_turn())
        state.state()  # a process looks at the stores when it starts
        with to_mongo() as sent:
            assert delete(f"conversations/{session}/").status_code == 204
        assert sent == ["find", "delete", "findAndModify"]
        assert store(MONGO).inspect(session).flag

    def test_a_store_that_takes_deletions_is_asked_for_later_turns(self) -> None:
        """Their ids may be ahead of the time, where a machine's clock was."""
        session = a_session()
        store(REDIS).append(session, None, [a_turn(at=now() + timedelta(seconds=15))])
        state.state().stores[REDIS].reads.trip()
        assert delete(f"conversations/{session}/").status_code == 204
        assert not store(REDIS).load(session)

    def test_the_response_to_a_deletion_is_empty(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        assert delete(f"conversations/{session}/").content == b""

    def test_deleting_twice_is_404(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        codes = [delete(f"conversations/{session}/").status_code for _ in range(2)]
        assert codes == [204, 404]
        assert delete(f"conversations/{a_session()}/").json()["code"] == "not_found"

    def test_a_deleted_session_can_be_used_again(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        delete(f"conversations/{session}/")
        answer = ask("What did I just ask?", session)
        assert (answer["answer"], answer["new_thread"]) == ("You have asked nothing before this question.", True)

    def test_a_deletion_while_redis_is_down_is_final(self, settings: Settings, redis_server: RedisServer) -> None:
        settings.CONV_DUAL_WRITE = True
        session = a_session()
        ask("What is Redis?", session)
        redis_server.kill()
        try:
            assert delete(f"conversations/{session}/").status_code == 204
        finally:
            redis_server.start()
        assert store(REDIS).load(session)
        assert get(f"conversations/{session}/").status_code == 404
        assert ask("What did I just ask?", session)["msg_count_before"] == 0

    def test_a_refused_deletion_is_not_applied_later(
        self, settings: Settings, redis_server: RedisServer, mongo_server: MongoServer
    ) -> None:
        """A server that does not answer takes what it was sent when it goes on."""
        delete(f"conversations/{a_session()}/")  # Redis has the script now
        ask("What?", session := a_session())
        settings.MONGO_TIMEOUT_MS = 300
        redis_server.freeze()
        mongo_server.freeze()
        try:
            response = delete(f"conversations/{session}/")
        finally:
            redis_server.thaw()
            mongo_server.thaw()
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert len(contents(session)) == 2

    def test_with_both_stores_down_deleting_is_503(self, redis_out: None, mongo_out: None) -> None:
        response = delete(f"conversations/{a_session()}/")
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")


class TestListing:
    def test_a_listed_conversation_has_count_time_and_stores(self, settings: Settings) -> None:
        headers, session = a_tenant(settings), a_session()
        ask("What is Redis?", session, headers=headers)
        at = get(f"conversations/{session}/", **headers).json()["messages"][-1]["at"]
        (found,) = listed(headers)
        assert found.pop("bytes") in range(200, 400)
        assert found == {"session_id": session, "messages": 2, "updated_at": at, "user": None, "stores": ["redis"]}

    def test_a_conversation_in_both_stores_is_listed_once(self, settings: Settings) -> None:
        headers = a_tenant(settings)
        sessions = {"redis": a_session(), "mongo": a_session(), "both": a_session()}
        for kind, session in sessions.items():
            settings.CONV_STORE_PRIMARY = "mongo" if kind == "mongo" else "redis"
            settings.CONV_DUAL_WRITE = kind == "both"
            state.forget()
            ask("What is Redis?", session, headers=headers)
        found = {each["session_id"]: each["stores"] for each in listed(headers)}
        assert found == {
            sessions["redis"]: ["redis"],
            sessions["mongo"]: ["mongo"],
            sessions["both"]: ["redis", "mongo"],
        }

    @pytest.mark.parametrize("limit", [1, 4, 100])
    def test_all_pages_together_have_every_conversation(self, settings: Settings, limit: int) -> None:
        settings.CONV_DUAL_WRITE = True
        headers = a_tenant(settings)
        sessions = {ask("And?", headers=headers)["session_id"] for _ in range(9)}
        assert {each["session_id"] for each in listed(headers, limit)} == sessions

    @pytest.mark.parametrize("kept", [[REDIS], [MONGO], [REDIS, MONGO]])
    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_a_page_has_as_many_as_its_limit(self, settings: Settings, limit: int, kept: list[str]) -> None:
        """Redis finds more at a time than it is asked for, and MongoDB may have none that Redis does not have."""
        tenant = a_session()
        headers, sessions = a_tenant(settings, tenant), [a_session() for _ in range(9)]
        for session in sessions:
            for alias in kept:
                store(alias).append(f"{tenant}:{session}", a_turn())
        sizes, found, cursor = [], [], ""
        while True:
            page = get(f"conversations/?limit={limit}&cursor={cursor}", **headers).json()
            found += [each["session_id"] for each in page["results"]]
            sizes.append(len(page["results"]))
            if page["next"] is None:
                break
            cursor = page["next"]
        assert sorted(found) == sorted(sessions)
        assert set(sizes[: len(sessions) // limit]) == {limit}
        assert sum(sizes[len(sessions) // limit :]) == len(sessions) % limit

    def test_a_page_has_as_many_as_its_limit_from_both_stores(self, settings: Settings) -> None:
        tenant = a_session()
        headers = a_tenant(settings, tenant)
        for alias in (REDIS, MONGO, MONGO):
            store(alias).append(f"{tenant}:{a_session()}", a_turn())
        page = get("conversations/?limit=2", **headers).json()
        assert [each["stores"] for each in page["results"]] == [["mongo"], ["mongo"]]
        rest = get(f"conversations/?limit=2&cursor={page['next']}", **headers).json()
        assert (len(rest["results"]), rest["next"]) == (1, None)

    def test_what_is_added_between_two_pages_hides_nothing(self, settings: Settings) -> None:
        tenant = a_session()
        headers, sessions = a_tenant(settings, tenant), {a_session() for _ in range(12)}
        for session in sessions:
            store(REDIS).append(f"{tenant}:{session}", a_turn())
        found, cursor = [], ""
        while cursor is not None:
            page = get(f"conversations/?limit=1&cursor={cursor}", **headers).json()
            found += [each["session_id"] for each in page["results"]]
            cursor = page["next"]
            store(REDIS).append(f"{tenant}:{a_session()}", a_turn())
            if len(found) > 500:
                break
        assert sessions <= set(found)

    def test_a_page_for_which_much_is_looked_at_is_short(self, settings: Settings) -> None:
        """Its round trips are bounded; the next page goes on."""
        tenant = a_session()
        headers, there = a_tenant(settings, tenant), a_session()
        store(REDIS).append(f"{tenant}:{there}", a_turn())
        gone = [f"{tenant}:{a_session()}" for _ in range(12)]
        for session in gone:
            store(REDIS).append(session, a_turn())
        with environment.REDIS.client() as client:
            client.delete(*(f"conv:{session}" for session in gone))
        with to_redis() as redis:
            page = get("conversations/?limit=2", **headers).json()
        assert (page["results"], page["complete"]) == ([], True)
        assert len([name for name in redis if name == "ZRANGE"]) == listing._LOOKS
        rest = get(f"conversations/?limit=2&cursor={page['next']}", **headers).json()
        assert ([each["session_id"] for each in rest["results"]], rest["next"]) == ([there], None)

    def test_the_newest_come_first(self, settings: Settings) -> None:
        """Whichever stores they are in, and however long the pages are."""
        tenant = a_session()
        headers, sessions = a_tenant(settings, tenant), [a_session() for _ in range(12)]
        for number, session in enumerate(sessions):
            turn = a_turn()
            for alias in [(REDIS,), (MONGO,), (REDIS, MONGO)][number % 3]:
                store(alias).append(f"{tenant}:{session}", turn)
        for limit in (1, 5, 100):
            assert [each["session_id"] for each in listed(headers, limit)] == sessions[::-1]

    def test_what_is_asked_again_moves_to_the_front(self, settings: Settings) -> None:
        headers = a_tenant(settings)
        first, second = a_session(), a_session()
        for session in (first, second, first):
            ask("What?", session, headers=headers)
        assert [each["session_id"] for each in listed(headers)] == [first, second]

    @pytest.mark.parametrize("limit", [1, 2, 100])
    def test_a_conversation_is_listed_once_where_one_store_has_more_of_it(self, settings: Settings, limit: int) -> None:
        tenant, turns = a_session(), some_turns(8)
        headers, sessions = a_tenant(settings, tenant), [a_session() for _ in range(4)]
        for number, session in enumerate(sessions):
            for alias in ALIASES:
                store(alias).append(f"{tenant}:{session}", turns[number])
        for number, alias in enumerate([REDIS, MONGO]):
            store(alias).append(f"{tenant}:{sessions[number]}", turns[4 + number])
        wanted = [sessions[1], sessions[0], sessions[3], sessions[2]]
        found = listed(headers, limit)
        assert [each["session_id"] for each in found] == wanted
        assert [each["messages"] for each in found] == [4, 4, 2, 2]
        assert {tuple(each["stores"]) for each in found} == {("redis", "mongo")}

    def test_what_is_deleted_leaves_the_list(self, settings: Settings) -> None:
        settings.CONV_DUAL_WRITE = True
        headers, session, other = a_tenant(settings), a_session(), a_session()
        for each in (session, other):
            ask("What?", each, headers=headers)
        delete(f"conversations/{session}/", **headers)
        assert [each["session_id"] for each in listed(headers)] == [other]

    def test_tenants_lists_are_apart(self, settings: Settings) -> None:
        mine, theirs, session = a_tenant(settings), a_tenant(settings), a_session()
        ask("Mine?", session, headers=mine)
        assert listed(theirs) == []
        ask("Theirs?", session, headers=theirs)
        assert [len(listed(each)) for each in (mine, theirs)] == [1, 1]

    def test_turns_during_an_outage_are_in_the_list(self, settings: Settings, redis_server: RedisServer) -> None:
        headers, sessions = a_tenant(settings), [a_session() for _ in range(3)]
        for number, session in enumerate(sessions):
            ask("What?", session, headers=headers)
            if number == 1:
                redis_server.kill()
        try:
            ask("And?", sessions[0], headers=headers)
        finally:
            redis_server.start()
        state.forget()
        assert [each["session_id"] for each in listed(headers)] == [sessions[0], *sessions[:0:-1]]

    def test_a_list_that_is_lost_is_incomplete_until_it_is_made_anew(self, settings: Settings) -> None:
        tenant = a_session()
        headers, session = a_tenant(settings, tenant), a_session()
        ask("What?", session, headers=headers)
        with environment.REDIS.client() as client:
            client.delete(newest_key(tenant), TENANTS, note_key(LISTED))
        page = get("conversations/", **headers).json()
        assert (page["results"], page["complete"]) == ([], False)
        lists._under_way.clear()
        while lists.make():
            pass
        page = get("conversations/", **headers).json()
        assert ([each["session_id"] for each in page["results"]], page["complete"]) == ([session], True)

    def test_the_list_of_a_time(self, settings: Settings) -> None:
        tenant = a_session()
        headers = a_tenant(settings, tenant)
        for day in (1, 2, 3, 4):
            at = datetime(2026, 5, day, 12, tzinfo=UTC)
            store(ALIASES[day % 2]).append(f"{tenant}:day{day}", a_turn(at=at))

        def of(query: str) -> list[str]:
            return [each["session_id"][3:] for each in get(f"conversations/?{query}", **headers).json()["results"]]

        assert of("since=2026-05-03") == ["4", "3"]
        assert of("until=2026-05-02") == ["2", "1"]
        assert of("since=2026-05-02&until=2026-05-03") == ["3", "2"]
        assert of("since=2026-05-02T12:00:00Z&until=2026-05-03T12:00Z") == ["2"]
        assert of("since=2026-05-03T13:00:00%2B02:00") == ["4", "3"]
        assert of("until=0001-01-01") == of("since=9999-12-31") == []
        page = get("conversations/?since=2026-05-02&limit=1", **headers).json()
        assert [each["session_id"] for each in page["results"]] == ["day4"]
        assert of(f"limit=100&cursor={page['next']}") == ["3", "2"]

    @pytest.mark.parametrize("text", ["", "x", "2026", "2026-02-30", "2026-05-02 12:00", "20260502", "2026-W18-1",
                                      "2026-05-02T25:00Z", "2026-05-02T12:00%2B99:00", "٢٠٢٦-05-02", "2026-05-02%0A",
                                      "9" * 5000])  # fmt: skip
    def test_a_date_that_is_none_is_400(self, text: str) -> None:
        for name in ("since", "until"):
            response = get(f"conversations/?{name}={text}")
            assert (response.status_code, response.json()["code"]) == (400, "invalid")
            assert response.json()["detail"].startswith(f"{name}: ")

    def test_an_empty_list_has_no_next_page(self, settings: Settings) -> None:
        headers = a_tenant(settings)
        assert listed(headers) == []

    def test_while_redis_is_down_the_list_is_incomplete(self, settings: Settings, redis_server: RedisServer) -> None:
        settings.CONV_DUAL_WRITE = True
        headers, session = a_tenant(settings), a_session()
        ask("What is Redis?", session, headers=headers)
        redis_server.kill()
        try:
            page = get("conversations/", **headers).json()
        finally:
            redis_server.start()
        assert [each["session_id"] for each in page["results"]] == [session]
        assert page["complete"] is False

    def test_while_mongo_is_down_the_list_is_incomplete(self, settings: Settings, mongo_out: None) -> None:
        headers, session = a_tenant(settings), a_session()
        ask("What is Redis?", session, headers=headers)
        page = get("conversations/", **headers).json()
        assert page["complete"] is False
        assert [each["session_id"] for each in listed(headers)] == [session]

    def test_a_list_does_not_wait_for_a_store_whose_breaker_is_open(self, settings: Settings) -> None:
        settings.CONV_DUAL_WRITE = True
        headers = a_tenant(settings)
        session = post({"question": "What?"}, **headers).json()["session_id"]
        for alias, commands in ((REDIS, to_redis), (MONGO, to_mongo)):
            state.forget()
            state.state().stores[alias].reads.trip()
            with commands() as sent:
                page = get("conversations/", **headers).json()
            assert (sent, page["complete"]) == ([], False)
            assert [one["session_id"] for one in page["results"]] == [session]

    def test_with_both_breakers_open_the_stores_are_asked_all_the_same(self, settings: Settings) -> None:
        settings.CONV_DUAL_WRITE = True
        headers = a_tenant(settings)
        session = post({"question": "What?"}, **headers).json()["session_id"]
        for alias in (REDIS, MONGO):
            state.state().stores[alias].reads.trip()
        page = get("conversations/", **headers).json()
        assert [one["session_id"] for one in page["results"]] == [session]

    def test_a_corrupt_conversation_is_listed_without_count(self, settings: Settings) -> None:
        """It must be visible, and must not hide the others."""
        tenant, session = a_session(), a_session()
        headers = a_tenant(settings, tenant)
        good = ask("What is Redis?", headers=headers)["session_id"]
        with environment.REDIS.client() as client:
            client.set(f"conv:{tenant}:{session}", "no history", ex=60)
        list_anew(REDIS)
        found = {each["session_id"]: each["messages"] for each in listed(headers)}
        assert found == {good: 2, session: None}

    def test_a_key_of_another_type_is_listed_without_count(self, settings: Settings) -> None:
        tenant, session = a_session(), a_session()
        headers = a_tenant(settings, tenant)
        store(MONGO).append(f"{tenant}:{session}", a_turn())
        with environment.REDIS.client() as client:
            client.hset(f"conv:{tenant}:{session}", "a", "b")
        list_anew(REDIS)
        assert [(each["session_id"], each["messages"]) for each in listed(headers)] == [(session, None)]

    def test_a_conversation_corrupt_in_mongo_is_listed_without_count(self, settings: Settings) -> None:
        tenant, session = a_session(), a_session()
        headers = a_tenant(settings, tenant)
        later = now() + timedelta(days=1)
        document = {"_id": f"conv:{tenant}:{session}", "messages": "text", "bytes": 4, "expires_at": later}
        connections["mongo"].get_collection("conversations_conversation").insert_one(document)
        list_anew(MONGO)
        assert [(each["session_id"], each["messages"]) for each in listed(headers)] == [(session, None)]

    @pytest.mark.parametrize("alias", [REDIS, MONGO])
    def test_a_page_of_fifty_takes_few_round_trips(self, settings: Settings, alias: str) -> None:
        tenant = a_session()
        headers = a_tenant(settings, tenant)
        for _ in range(50):
            store(alias).append(f"{tenant}:{a_session()}", a_turn())
        store(REDIS).summaries([a_session()])  # Redis has the script from now on
        state.state()
        with to_redis() as redis, to_mongo() as mongo:
            assert len(get("conversations/?limit=50", **headers).json()["results"]) == 50
        assert redis == ["GET", "ZRANGE", "EVALSHA"]
        assert set(mongo) == {"find"}
        assert len(mongo) <= 14  # each looks at a time that is eight times as long

    def test_a_page_whose_store_fails_in_the_middle_comes_from_the_other(
        self, settings: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.CONV_DUAL_WRITE = True
        headers, session, newest = a_tenant(settings), a_session(), CacheStore._newest
        ask("What is Redis?", session, headers=headers)
        monkeypatch.setattr(CacheStore, "_newest", lambda *these: (newest(*these), redis_server.kill())[0])
        try:
            page = get("conversations/", **headers).json()
        finally:
            redis_server.start()
        assert [(each["session_id"], each["messages"]) for each in page["results"]] == [(session, 2)]
        assert page["complete"] is False

    def test_a_list_continues_while_one_store_is_up(self, settings: Settings, mongo_out: None) -> None:
        """Redis was down on the page before and is up again; now MongoDB is down."""
        cursor = listing.Cursor(stamp(now()), "", complete=False).encode()
        response = get(f"conversations/?cursor={cursor}", **a_tenant(settings))
        assert (response.status_code, response.json()) == (200, {"results": [], "next": None, "complete": False})

    def test_a_key_that_is_no_session_is_left_out(self, settings: Settings) -> None:
        """Another program wrote it; it must not hide the others."""
        session = f"{a_session()} with blanks"
        with environment.REDIS.client() as client:
            client.set(f"conv:{session}", "x", ex=60)
            settings.CHAT_RATE = ""
            list_anew(REDIS)
            assert session not in [each["session_id"] for each in listed({})]

    @pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "a", "", "1e1", "٣", "9" * 5000,
                                       "0100999999", "01", "007", "%2B5", "%205", "5%0A", "5_0"])  # fmt: skip
    def test_an_invalid_limit_is_400(self, limit: str) -> None:
        response = get(f"conversations/?limit={limit}")
        assert (response.status_code, response.json()["code"]) == (400, "invalid")
        assert response.json()["detail"].startswith("limit: ")

    @pytest.mark.parametrize(
        "fields",
        [
            ["redis", "1", True],
            ["mongo", "", True],
            ["redis", "1", True, 2, ""],
            ["2026-05-02T12:00:00.000Z", "a", "1970-01-01T00:00:00.000Z"],
            ["2026-05-02T12:00:00.000Z", "a", "1970-01-01T00:00:00.000Z", 1],
            ["2026-13-02T12:00:00.000Z", "a", "1970-01-01T00:00:00.000Z", True],
            ["2026-05-02", "a", "1970-01-01T00:00:00.000Z", True],
            ["2026-05-02T12:00:00.000Z", "a b", "1970-01-01T00:00:00.000Z", True],
            ["2026-05-02T12:00:00.000Z", "other:a", "1970-01-01T00:00:00.000Z", True],
            ["2026-05-02T12:00:00.000Z", "a", "", True],
            ["2026-05-02T12:00:00.000Z", "a", None, True],
            [5, "a", "1970-01-01T00:00:00.000Z", True],
            ["2026-05-02T12:00:00.000Z", [], "1970-01-01T00:00:00.000Z", True],
            ["0001-05-02T12:00:00.000Z", "a", "1970-01-01T00:00:00.000Z", True],
            {"a": 1, "b": 2, "c": 3, "d": 4},
            1,
        ],
    )
    def test_a_cursor_of_other_fields_is_400(self, fields: object) -> None:
        """Those of before, too."""
        self.test_an_invalid_cursor_is_400(base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("="))

    @pytest.mark.parametrize("cursor", ["nonsense", "é", "W10", "W1tdLDEsMiwzXQ"])
    def test_an_invalid_cursor_is_400(self, cursor: str) -> None:
        response = get(f"conversations/?cursor={cursor}")
        assert (response.status_code, response.json()["code"]) == (400, "invalid")
        assert response.json()["detail"].startswith("cursor: ")


class TestExporting:
    def test_exported_json_is_the_conversation(self) -> None:
        session = a_session()
        ask("What is Redis?", session)
        for path in (f"conversations/{session}/export", f"conversations/{session}/export?as=json"):
            response = get(path)
            assert response["Content-Type"] == "application/json"
            assert response["Content-Disposition"] == f'attachment; filename="{session}.json"'
            assert response.json() == get(f"conversations/{session}/").json()

    def test_exported_markdown_has_headings_and_times(self) -> None:
        session = a_session()
        turn = a_turn("What is Żółć?", "It is\n\n- bile.")
        store(REDIS).append(session, turn)
        response = get(f"conversations/{session}/export?as=markdown")
        assert response["Content-Type"] == "text/markdown; charset=utf-8"
        assert response["Content-Disposition"] == f'attachment; filename="{session}.md"'
        assert response.content.decode() == (
            f"# {session}\n\n## Question\n\n*{turn.question.at}*\n\nWhat is Żółć?\n"
            f"\n## Answer\n\n*{turn.answer.at}*\n\nIt is\n\n- bile.\n"
        )

    def test_an_unknown_conversation_is_404(self) -> None:
        for wanted in ("json", "markdown"):
            response = get(f"conversations/{a_session()}/export?as={wanted}")
            assert (response.status_code, response.json()["code"]) == (404, "not_found")

    def test_another_export_format_is_400(self) -> None:
        response = get(f"conversations/{a_session()}/export?as=pdf")
        assert (response.status_code, response.json()["detail"]) == (400, "as: Must be json or markdown.")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/html", "text/markdown", "text/event-stream", "image/png"]
)
def test_the_accept_header_is_ignored(accept: str) -> None:
    """The address decides what is sent, also to a browser or an event source."""
    session = a_session()
    assert post({"question": "What is Redis?", "session_id": session}, Accept=accept).status_code == 200
    for path in ("conversations/", f"conversations/{session}/", f"conversations/{session}/export?as=markdown"):
        assert get(path, Accept=accept).status_code == 200


class TestCaching:
    """No proxy or browser may cache messages."""

    def test_responses_forbid_caching(self) -> None:
        session = a_session()
        question = {"question": "What is Redis?", "session_id": session}
        answers = [post(question), post(question | {"stream": True}), get("conversations/")]
        answers += [get(f"conversations/{session}/{rest}") for rest in ("", "export", "export?as=markdown")]
        answers.append(delete(f"conversations/{session}/"))
        assert [(each.status_code, each["Cache-Control"]) for each in answers] == [
            *[(200, "no-store")] * 6,
            (204, "no-store"),
        ]

    def test_errors_forbid_caching(self, settings: Settings) -> None:
        errors = [
            post({}),
            get("conversations/?limit=0"),
            get(f"conversations/{a_session()}/"),
            get("nothing"),
            get("ask"),
        ]
        settings.CHAT_AUTH = "token"
        errors.append(get("conversations/"))
        assert [(each.status_code, each["Cache-Control"]) for each in errors] == [
            (status, "no-store") for status in (400, 400, 404, 404, 405, 401)
        ]
