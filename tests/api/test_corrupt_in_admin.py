"""Quarantined conversations in the admin: any document is shown as text, also with MongoDB down."""

from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from bson import Binary, Decimal128, ObjectId
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from conversations.stores import MONGO, store
from tests.builders import a_session

LIST = "/admin/conversations/corruptconversation/"
NONE = "0" * 24


def collection(name: str) -> Any:
    return connections["mongo"].get_collection(f"conversations_{name}")


@pytest.fixture
def staff() -> Client:
    user, _ = User.objects.update_or_create(username="root", defaults={"is_staff": True, "is_superuser": True})
    client = Client()
    client.force_login(user)
    return client


def quarantined(**corrupt: Any) -> tuple[str, str]:
    """Corrupt a conversation in MongoDB and quarantine it; return its session and the address of its page."""
    session = a_session()
    store(MONGO).append(session, None, flag=True)
    collection("conversation").update_one({"_id": f"conv:{session}"}, {"$set": corrupt})
    store(MONGO).quarantine(session)
    return session, address(session)


def address(session: str) -> str:
    return f"{LIST}{collection('corruptconversation').find_one({'key': f'conv:{session}'}, {'_id': 1})['_id']}/change/"


def text(client: Client, page: str) -> str:
    """Return the document as it is shown."""
    response = client.get(page)
    assert response.status_code == 200
    return unescape(response.content.decode().partition('<pre class="document">')[2].partition("</pre>")[0])


@pytest.mark.parametrize(
    "document",
    [{"_id": 5, "key": "conv:x"}, {"key": 7}, {"key": "conv:x", "expires_at": "x"}, {}],
    ids=["id", "key", "time", "nothing"],
)
def test_what_another_program_wrote_is_left_out(staff: Client, document: dict[str, Any]) -> None:
    (session, _), written = quarantined(messages="spoilt"), {"expires_at": datetime.now(UTC), **document}
    collection("corruptconversation").insert_one(written)
    try:
        listed = staff.get(LIST)
        assert listed.status_code == 200
        assert session in listed.content.decode()
    finally:
        collection("corruptconversation").delete_one({"_id": written["_id"]})


def test_corrupt_conversations_are_listed_and_found_by_session(staff: Client) -> None:
    (one, page), (other, _) = quarantined(messages="spoilt"), quarantined(messages=5)
    found = staff.get(LIST, {"q": one})
    assert found.status_code == 200
    assert page in found.content.decode()
    assert other not in found.content.decode()
    listed = staff.get(LIST)
    assert listed.status_code == 200
    assert one in listed.content.decode() and other in listed.content.decode()


def test_a_document_is_shown_as_text_and_read_only(staff: Client) -> None:
    session, page = quarantined(messages="<script>alert(1)</script> & \x1b\u202e")
    assert f'"_id": "conv:{session}"' in text(staff, page)
    assert r'"messages": "<script>alert(1)</script> & \u001b\u202e"' in text(staff, page)
    shown = staff.get(page).content.decode()
    assert "<script>alert(1)" not in shown
    assert 'name="_save"' not in shown
    assert staff.post(page, {"key": "conv:other"}).status_code == 403


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ([1, {"a": []}], '[\n    1,\n    {\n      "a": []\n    }\n  ]'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{\n    "$date": "2026-01-02T00:00:00Z"\n  }'),
        (ObjectId("0123456789abcdef01234567"), '{\n    "$oid": "0123456789abcdef01234567"\n  }'),
        (Binary(b"\xff"), '{\n    "$binary": {\n      "base64": "/w==",\n      "subType": "00"\n    }\n  }'),
        (Decimal128("1E+6000"), '{\n    "$numberDecimal": "1E+6000"\n  }'),
        (float("inf"), "Infinity"),
    ],
)
def test_types_that_only_mongodb_has_are_shown(staff: Client, value: Any, shown: str) -> None:
    assert f'"messages": {shown}' in text(staff, quarantined(messages=value)[1])


@pytest.mark.parametrize("value", ["x" * 1_000_000, [{"n": 1}] * 100_000], ids=["string", "list"])
def test_a_long_document_is_cut(staff: Client, value: Any) -> None:
    _, page = quarantined(messages=value)
    assert text(staff, page).endswith("\n… cut after 20,000 characters")
    assert len(text(staff, page)) < 20_100
    assert len(staff.get(LIST).content) < 100_000


@pytest.mark.parametrize("page", ["", f"{NONE}/change/", f"{NONE}/history/", f"{NONE}/delete/"])
def test_with_mongo_down_the_pages_are_503_with_a_message(staff: Client, mongo_out: None, page: str) -> None:
    response = staff.get(LIST + page)
    assert response.status_code == 503
    assert "MongoDB cannot be read now" in response.content.decode()


@pytest.mark.parametrize("wanted", ["?q=(", "?q=%00", "?p=nine", "?o=9", "?key__regex=(", "?e=1", "nonsense/change/"])
def test_an_invalid_address_is_no_server_error(staff: Client, wanted: str) -> None:
    assert staff.get(LIST + wanted, follow=True).status_code in (200, 503)
