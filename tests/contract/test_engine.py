"""What the ORM does with MongoDB's documents, whichever engine MONGO_ENGINE names."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import connections
from django.db.models import QuerySet

from conversations.models import ALIAS, Conversation
from tests.builders import a_session

STORED = sorted(["abc", "ABC", "a.c", "a%c", "a_c", "a\\c", "(", "$", '{"key": "abc"}', "{'key': 'abc'}"])
LOOKED_FOR = [*STORED, ".*", "a|b", "^", "[", '{"messages": ".*"}']

Rows = QuerySet[Conversation]


@pytest.fixture
def prefix() -> str:
    return f"conv:{a_session()} "


@pytest.fixture
def rows(prefix: str) -> Iterator[Rows]:
    """Conversations of keys that no session has, so that anything can be looked for."""
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for text in STORED:
        Conversation.objects.create(
            key=prefix + text, messages=[{"text": text}], updated_at=time, expires_at=time + timedelta(days=9999)
        )
    found = Conversation.objects.filter(pk__gte=prefix, pk__lt=prefix + "\uffff")
    yield found
    found.delete()


def texts(rows: Rows) -> list[str]:
    """Return what is after the prefix in each key."""
    return [row.key.partition(" ")[2] for row in rows.order_by("pk")]


@pytest.mark.parametrize("text", LOOKED_FOR)
class TestLookingForText:
    """It comes from a client: no part of it is a regular expression, or a query."""

    def test_anywhere(self, rows: Rows, prefix: str, text: str) -> None:
        assert texts(rows.filter(pk__contains=text)) == [one for one in STORED if text in prefix + one]
        folded = text.lower()
        assert texts(rows.filter(pk__icontains=text)) == [one for one in STORED if folded in (prefix + one).lower()]

    def test_at_the_end(self, rows: Rows, text: str) -> None:
        assert texts(rows.filter(pk__endswith=text)) == [one for one in STORED if one.endswith(text)]
        folded = text.lower()
        assert texts(rows.filter(pk__iendswith=text)) == [one for one in STORED if one.lower().endswith(folded)]

    def test_at_the_beginning(self, rows: Rows, prefix: str, text: str) -> None:
        text = prefix + text
        assert texts(rows.filter(pk__startswith=text)) == [one for one in STORED if (prefix + one).startswith(text)]
        folded = text.lower()
        assert texts(rows.filter(pk__istartswith=text)) == [
            one for one in STORED if (prefix + one).lower().startswith(folded)
        ]

    @pytest.mark.skipif(
        settings.MONGO_ENGINE == "mongodb", reason="it takes this for a regular expression; nothing here asks for it"
    )
    def test_whole(self, rows: Rows, prefix: str, text: str) -> None:
        assert texts(rows.filter(pk__iexact=prefix + text)) == [one for one in STORED if one.lower() == text.lower()]


def test_a_regular_expression_need_not_match_the_whole(rows: Rows) -> None:
    assert texts(rows.filter(pk__regex=r" a\.c|key")) == [one for one in STORED if one == "a.c" or "key" in one]
    assert texts(rows.filter(pk__iregex=" Abc$")) == ["ABC", "abc"]


def test_rows_are_sorted_and_cut(rows: Rows, prefix: str) -> None:
    assert [row.key for row in rows.order_by("-pk")[2:5]] == [prefix + one for one in STORED[::-1][2:5]]
    assert list(rows.order_by("pk").values_list("pk", flat=True)[:2]) == [prefix + one for one in STORED[:2]]


def test_rows_are_counted(rows: Rows) -> None:
    assert rows.count() == len(STORED)
    assert rows.exists()
    assert not rows.filter(pk__contains="missing").exists()
    assert rows.exclude(pk__contains="key").count() == len(STORED) - 2


def test_fields_have_the_types_of_the_model(rows: Rows, prefix: str) -> None:
    row = rows.get(pk=f"{prefix}abc")
    assert row.messages == [{"text": "abc"}]
    assert row.updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (row.bytes, row.tombstone) == (0, None)
    found = connections[ALIAS].get_collection(Conversation._meta.db_table).find_one({"_id": row.key})
    assert json.dumps(found["messages"]) == '[{"text": "abc"}]'


def test_a_row_is_changed_and_deleted(rows: Rows, prefix: str) -> None:
    one = rows.filter(pk=f"{prefix}abc")
    assert one.update(messages=[1, [2]]) == 1
    assert one.get().messages == [1, [2]]
    assert one.delete()[0] == 1
    assert not one.exists()


def test_a_closed_connection_is_used_again(rows: Rows) -> None:
    """As after each request."""
    connections[ALIAS].close()
    assert rows.count() == len(STORED)
