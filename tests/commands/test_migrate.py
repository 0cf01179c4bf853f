"""The migration of MongoDB, which may come when conversations are already there."""

from django.core.management import call_command
from django.db import connections

from conversations.stores import MONGO, store
from tests.builders import a_session, a_turn


def test_it_indexes_a_collection_that_a_turn_has_made_already() -> None:
    """MongoDB can be late: turns are stored before `serve` could migrate it."""
    call_command("migrate", "conversations", "zero", database="mongo", verbosity=0)
    collection = connections["mongo"].get_collection("conversations_conversation")
    for index in list(collection.index_information()):
        if index != "_id_":
            collection.drop_index(index)
    store(MONGO).append(a_session(), a_turn())
    call_command("migrate", database="mongo", verbosity=0)
    keys = [index["key"] for index in collection.index_information().values()]
    assert [("expires_at", 1)] in keys
    assert [("mark", 1)] in keys


def test_every_change_of_a_model_has_its_migration() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_record_of_migrations_is_the_same_on_every_engine() -> None:
    """So that MONGO_ENGINE can be changed: either records what comes next."""
    record = connections["mongo"].get_collection("django_migrations")
    assert set(record.index_information()) == {"_id_"}
    assert set(record.find_one()) == {"_id", "app", "name", "applied"}
