"""The status page of the admin: what `status` reports, also where a store is out."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from conversations.policy import Routing, Switch
from conversations.runtime import pings, switching
from conversations.runtime.state import state
from conversations.stores import ALIASES, MONGO, REDIS, store
from ops.backup.create import NOTE
from tests import environment
from tests.builders import a_session
from tests.servers import configured

pytestmark = pytest.mark.usefixtures("both_empty")

PAGE, LIVE = "/admin/status/", "/admin/status/live/"


def who(name: str, **rights: bool) -> Client:
    """Return a client that is logged in as a user with these rights."""
    user, _ = User.objects.update_or_create(username=name, defaults=rights)
    client = Client()
    client.force_login(user)
    return client


def superuser() -> Client:
    return who("root", is_staff=True, is_superuser=True)


def text(response: Any) -> str:
    """Return the words of a page, without its tags."""
    page = re.sub(r"<(style|script).*?</\1>", "", response.content.decode(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


class TestLooking:
    def test_staff_see_all_of_it_in_one_get(self) -> None:
        for alias in ALIASES:
            store(alias).write_note(NOTE, "2026-11-24T03:17:00.000Z")
        pings.look()  # this process' gauges may still show another test's outage
        response = who("staff", is_staff=True, is_superuser=False).get(PAGE)
        assert response.status_code == 200
        output = text(response)
        # Not the verdict: this process' counters include other tests' outages.
        for words in ("traffic primary redis, dual write off", "state up up", "unsynced 0 0",
                      "breakers open none known", "hours ago, at 2026-11-24T03:17:00+00:00",
                      "scrub none has ended", "P95 latency",
                      "normal: &lt; 50 ms", "persist errors", "memory per 10K", "hit rate"):  # fmt: skip
            assert words in output, words

    def test_how_full_a_memory_with_a_limit_is_is_drawn(self) -> None:
        assert "<meter " not in superuser().get(PAGE).content.decode()
        with configured(environment.REDIS, maxmemory="1gb"):
            page = superuser().get(PAGE).content.decode()
        assert len(re.findall(r'<meter [^>]*value="0\.\d{3}"', page)) == 1

    def test_it_is_the_first_thing_that_the_index_lists(self) -> None:
        page = who("staff", is_staff=True, is_superuser=False).get("/admin/").content.decode()
        assert f'href="{PAGE}"' in page

    def test_other_users_do_not_see_it(self) -> None:
        for client in (Client(), who("guest", is_staff=False, is_superuser=False)):
            response = client.get(PAGE)
            assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/admin/login/")

    def test_the_runbook_is_a_page_of_the_admin(self) -> None:
        page = who("staff", is_staff=True, is_superuser=False).get("/admin/runbook/").content.decode()
        assert '<h2 id="alert-redisdown">Alert: RedisDown</h2>' in page
        assert Client().get("/admin/runbook/").status_code == 302

    def test_what_is_renewed_has_the_same_parts_and_nothing_else(self) -> None:
        client = superuser()
        page, live = (client.get(path).content.decode() for path in (PAGE, LIVE))
        live += client.get("/admin/status/charts/").content.decode()
        parts = re.findall(r'id="(status-[a-z]+)"', live)
        assert sorted(parts) == sorted(re.findall(r'id="(status-[a-z]+)"', page)) != []
        assert "<form" not in live and "<html" not in live
        assert re.search(rf'data-live="{LIVE}"', page)

    def test_what_is_renewed_is_for_staff(self) -> None:
        assert who("staff", is_staff=True, is_superuser=False).get(LIVE).status_code == 200
        for client in (Client(), who("guest", is_staff=False, is_superuser=False)):
            assert client.get(LIVE).status_code == 302

    @pytest.mark.parametrize("out", ALIASES)
    def test_with_a_store_out_it_is_named(self, out: str, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue(f"{out}_out")
        response = superuser().get(PAGE)
        assert response.status_code == 200
        assert "Something is wrong" in text(response)
        page = response.content.decode()
        assert re.search(
            rf'<li>{out} is out \([^<]+\)\s*<a class="alert \w+" href="/admin/runbook/#alert-{out}down">', page
        )
        assert '<span class="badge bad">OUT (' in response.content.decode()

    def test_with_both_out_it_still_answers(self, redis_out: None, mongo_out: None) -> None:
        response = superuser().get(PAGE)
        assert response.status_code == 200
        assert "newest backup not known" in text(response)

    def test_with_both_out_a_server_shows_the_switch_that_it_follows(self, redis_out: None, mongo_out: None) -> None:
        state().switch = Switch(Routing(MONGO, True), Routing(REDIS, False), 1.0, "alice")
        assert "traffic primary mongo, dual write on" in text(superuser().get(PAGE))

    def test_a_reason_is_not_markup(self) -> None:
        switching.record(Routing(MONGO, True), "alice", "<script>alert(1)</script>")
        page = superuser().get(PAGE).content.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script>alert(1)" not in page

    def test_no_address_password_or_session_is_on_it(self, redis_out: None) -> None:
        session = a_session()
        store(MONGO).append(session, None, flag=True)
        page = superuser().get(PAGE).content.decode()
        ports = [port for one in (environment.REDIS, environment.MONGO) for port in re.findall(r":(\d+)", one.url)]
        secrets = (session, *ports, "redis://", "sentinel://", "cluster://", "mongodb://")
        assert not [secret for secret in secrets if secret in page]

    def test_nothing_is_fetched_from_elsewhere(self) -> None:
        page = superuser().get(PAGE).content.decode()
        assert not re.findall(r"""(?:src|href|action)=["'](?:https?:)?//""", page)
