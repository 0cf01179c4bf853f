"""Errors are pages under the admin's address, and JSON elsewhere; no page has anything inline."""

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client

from ops.models import AuditEntry

pytestmark = pytest.mark.django_db

INLINE = re.compile(r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE)


def fails(request: HttpRequest) -> HttpResponse:
    raise RuntimeError


@pytest.fixture
def admin() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("op"))
    return client


def is_page(response: Any, status: int, words: str) -> None:
    text = response.content.decode()
    assert (response.status_code, response["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert words in text
    assert "onesource" in text
    assert response["Cache-Control"] == "no-store"
    assert not INLINE.search(text)


class TestErrors:
    def test_an_unknown_address(self, admin: Client) -> None:
        is_page(admin.get("/admin/nothing/"), 404, "There is nothing at this address.")
        assert json.loads(Client().get("/nothing").content)["code"] == "not_found"

    def test_deleting_what_is_only_to_be_read(self, admin: Client) -> None:
        entry = AuditEntry.objects.create(who="op", action="trim", outcome="done")
        is_page(admin.get(f"/admin/ops/auditentry/{entry.pk}/delete/"), 403, "You may not do this.")

    def test_another_host(self) -> None:
        is_page(Client(SERVER_NAME="elsewhere.example").get("/admin/login/"), 400, "ALLOWED_HOSTS")

    def test_a_fault(self, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ops.pages._status", fails)
        is_page(admin.get("/admin/status/"), 500, "it has been logged")

    def test_a_form_without_its_token(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        is_page(strict.post("/admin/login/", {"username": "op"}), 403, "The form is out of date")
        refused = strict.post("/stores/redis/stop")
        assert (refused.status_code, json.loads(refused.content)["code"]) == (403, "csrf_failed")


class TestPolicy:
    PAGES = ["/", "/api/docs/", "/admin/login/", "/admin/", "/admin/status/", "/admin/auth/user/",
             "/admin/auth/user/add/", "/admin/auth/group/add/", "/admin/ops/auditentry/", "/admin/nothing/",
             "/admin/conversations/conversation/", "/admin/password_change/"]  # fmt: skip

    @pytest.mark.parametrize("path", PAGES)
    def test_a_page_has_it_and_nothing_inline(self, admin: Client, path: str) -> None:
        response = admin.get(path)
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not INLINE.search(response.content.decode())

    def test_the_script_of_the_documentation_is_a_file(self) -> None:
        client = Client()
        page = client.get("/api/docs/").content.decode()
        (script,) = re.findall(r'src="(/api/docs/[^"]+)"', page)
        assert client.get(script)["Content-Type"].startswith("application/javascript")
