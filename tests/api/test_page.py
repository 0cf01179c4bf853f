"""The page at `/`, and who may do something to the stores from it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import Client
from pytest_django import Settings

from embedded.requests import Requests

LOCAL = {"HTTP_HOST": "localhost:8001", "REMOTE_ADDR": "127.0.0.1"}
STOP = "/stores/redis/stop"


@pytest.fixture
def embedded(settings: Settings) -> None:
    """The settings of a service that has started both stores."""
    settings.EMBEDDED = settings.EMBEDDED_REDIS = settings.EMBEDDED_MONGO = True
    settings.CHAT_AUTH = "open"


@pytest.fixture
def requests(embedded: None, settings: Settings) -> Iterator[Requests]:
    """What `serve` reads."""
    reader = Requests(Path(settings.VAR_DIR))
    yield reader
    reader.close()


def visitor() -> Client:
    """Return a browser that has opened the page; its requests carry what the page has for them."""
    client = Client(enforce_csrf_checks=True)
    client.get("/", **LOCAL)
    return client


def post(client: Client, path: str = STOP, **headers: str) -> Any:
    cookie = client.cookies.get("csrftoken")
    sent = {"HTTP_X_CSRFTOKEN": cookie.value} if cookie else {}
    return client.post(path, **{**LOCAL, "HTTP_ORIGIN": "http://localhost:8001", **sent, **headers})


class TestPage:
    def test_it_is_there_without_a_store_or_a_database(self, redis_out: None, mongo_out: None) -> None:
        response = Client().get("/")
        assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert response["Cache-Control"] == "no-store"

    def test_nothing_runs_but_its_own_files(self, embedded: None) -> None:
        response = Client().get("/", **LOCAL)
        policy = dict(part.strip().split(" ", 1) for part in response["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", response.content.decode())

    def test_every_file_that_it_names_is_there(self) -> None:
        page = Client().get("/").content.decode()
        named = re.findall(r'"/static/([^"]+)"', page)
        modules = list(Path(str(finders.find("page/chat.js"))).parent.glob("*.js"))
        imported = {f"page/{name}" for one in modules for name in re.findall(r'from "\./([^"]+)"', one.read_text())}
        assert len(named) == 3
        assert [name for name in {*named, *imported} if not finders.find(name)] == []

    @pytest.mark.parametrize("method", ["post", "put", "delete"])
    def test_it_is_only_read(self, method: str) -> None:
        assert getattr(Client(), method)("/").status_code == 405

    def test_it_asks_for_a_token_where_one_is_needed(self, settings: Settings) -> None:
        assert "data-needs-token" not in Client().get("/").content.decode()
        settings.CHAT_AUTH = "token"
        assert "data-needs-token" in Client().get("/").content.decode()

    def test_only_a_visitor_who_may_break_it_gets_the_drawer_and_its_cookie(self, embedded: None) -> None:
        here, elsewhere, proxied = Client(), Client(), Client()
        assert 'id="breaking"' in here.get("/", **LOCAL).content.decode()
        assert 'id="breaking"' not in elsewhere.get("/", **{**LOCAL, "REMOTE_ADDR": "10.0.0.1"}).content.decode()
        assert 'id="breaking"' not in proxied.get("/", **LOCAL, HTTP_X_FORWARDED_PROTO="https").content.decode()
        assert ("csrftoken" in here.cookies, "csrftoken" in elsewhere.cookies) == (True, False)


class TestStores:
    @pytest.mark.parametrize("verb", ["stop", "freeze", "start"])
    @pytest.mark.parametrize("name", ["redis", "mongo"])
    def test_a_local_visitor_changes_an_embedded_store(self, requests: Requests, name: str, verb: str) -> None:
        assert post(visitor(), f"/stores/{name}/{verb}").status_code == 202
        assert requests.wait(0) == [(verb, name)]

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
    @pytest.mark.parametrize("host", ["localhost:8001", "127.0.0.1:8001", "[::1]:8001", "localhost"])
    def test_every_loopback_address_is_local(self, requests: Requests, address: str, host: str) -> None:
        sent = post(visitor(), REMOTE_ADDR=address, HTTP_HOST=host, HTTP_ORIGIN=f"http://{host}")
        assert sent.status_code == 202

    @pytest.mark.parametrize(
        "headers",
        [
            {"REMOTE_ADDR": "10.0.0.1"},
            {"REMOTE_ADDR": "::ffff:10.0.0.1"},
            {"REMOTE_ADDR": ""},
            {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
            {"HTTP_FORWARDED": "for=127.0.0.1"},
            {"HTTP_VIA": "1.1 proxy"},
            {"HTTP_X_FORWARDED_PROTO": "http"},
            {"HTTP_X_FORWARDED_HOST": "localhost:8001"},
            {"HTTP_X_FORWARDED_PREFIX": ""},
            {"HTTP_X_REAL_IP": "127.0.0.1"},
            {"HTTP_SEC_FETCH_SITE": "same-site"},
            {"HTTP_SEC_FETCH_SITE": "cross-site"},
            {"HTTP_SEC_FETCH_SITE": "none"},
            {"HTTP_HOST": "rebound.example:8001", "HTTP_ORIGIN": "http://rebound.example:8001"},
            {"HTTP_ORIGIN": "http://evil.example"},
            {"HTTP_ORIGIN": "null"},
            {"HTTP_ORIGIN": ""},
            {"HTTP_ORIGIN": "http://127.0.0.1:8001"},
            {"HTTP_ORIGIN": "http://localhost:3000"},
            {"HTTP_X_CSRFTOKEN": ""},
            {"HTTP_X_CSRFTOKEN": "a" * 64},
        ],
        ids=lambda headers: "-".join(f"{name}={value[:20]}" for name, value in headers.items()),
    )
    def test_another_request_is_refused(self, requests: Requests, settings: Settings, headers: dict[str, str]) -> None:
        settings.ALLOWED_HOSTS = ["*"]
        assert post(visitor(), **headers).status_code == 403
        assert requests.wait(0) == []

    def test_a_request_without_an_origin_is_refused(self, requests: Requests) -> None:
        client = visitor()
        sent = {**LOCAL, "HTTP_X_CSRFTOKEN": client.cookies["csrftoken"].value}
        assert client.post(STOP, **sent).status_code == 403
        assert requests.wait(0) == []

    def test_another_origin_that_django_trusts_is_refused(self, requests: Requests, settings: Settings) -> None:
        """CSRF_TRUSTED_ORIGINS is for the admin behind a proxy."""
        settings.CSRF_TRUSTED_ORIGINS = ["https://chat.example.org"]
        assert post(visitor(), HTTP_ORIGIN="https://chat.example.org").status_code == 403
        assert requests.wait(0) == []

    def test_a_proxy_that_is_not_seen_in_headers_does_not_hide_a_browser(self, requests: Requests) -> None:
        """It sends `Host: localhost` and nothing else of its own; the browser's Origin is the public name."""
        sent = post(visitor(), HTTP_HOST="localhost", HTTP_ORIGIN="https://chat.example.org")
        assert sent.status_code == 403
        assert requests.wait(0) == []

    def test_a_browser_says_that_the_page_itself_asks(self, requests: Requests) -> None:
        assert post(visitor(), HTTP_SEC_FETCH_SITE="same-origin").status_code == 202

    @pytest.mark.parametrize(("name", "value"), [("CHAT_AUTH", "token"), ("HTTPS", True), ("EMBEDDED_REDIS", False)])
    def test_settings_that_forbid_it(self, requests: Requests, settings: Settings, name: str, value: Any) -> None:
        client = visitor()
        setattr(settings, name, value)
        assert post(client).status_code == 403
        assert requests.wait(0) == []

    def test_there_is_no_such_address_without_embedded_stores(self, requests: Requests, settings: Settings) -> None:
        client = visitor()
        settings.EMBEDDED = settings.EMBEDDED_REDIS = settings.EMBEDDED_MONGO = False
        assert post(client).status_code == 404
        assert requests.wait(0) == []

    def test_an_unknown_verb_or_store_is_refused(self, requests: Requests) -> None:
        client = visitor()
        assert post(client, "/stores/redis/flushall").status_code == 404
        assert post(client, "/stores/default/stop").status_code == 403
        assert client.get(STOP, **LOCAL).status_code == 405
        assert requests.wait(0) == []

    def test_without_serve_nothing_is_done(self, embedded: None) -> None:
        response = post(visitor())
        assert (response.status_code, json.loads(response.content)["code"]) == (503, "not_serving")
