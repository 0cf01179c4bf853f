"""The two collections, and the indexes by which MongoDB lets go of what has expired."""

from typing import Any

import django_mongodb_backend.fields
from django.db import migrations, models

from conversations.models import ALIAS
from conversations.stores.mongo import indexes


def index(apps: Any, schema_editor: Any) -> None:
    """Create the indexes, and with them the collections that are not there: a turn that was stored before
    this ran, while MongoDB was late, has made its own."""
    if schema_editor.connection.alias == ALIAS:
        indexes.create()


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Conversation",
                    fields=[
                        ("key", models.CharField(db_column="_id", max_length=262, primary_key=True, serialize=False)),
                        ("messages", models.JSONField(default=list)),
                        (
                            "bytes",
                            models.PositiveBigIntegerField(default=0, help_text="At most this long as JSON lines."),
                        ),
                        ("updated_at", models.DateTimeField()),
                        ("expires_at", models.DateTimeField()),
                        (
                            "tombstone",
                            models.CharField(
                                help_text="The id up to which everything was deleted.", max_length=36, null=True
                            ),
                        ),
                        (
                            "mark",
                            models.CharField(
                                help_text="Set while the other store is missing turns of it.", max_length=32, null=True
                            ),
                        ),
                    ],
                    options={"ordering": ("key",)},
                ),
                migrations.CreateModel(
                    name="CorruptConversation",
                    fields=[
                        ("id", django_mongodb_backend.fields.ObjectIdAutoField(primary_key=True, serialize=False)),
                        ("key", models.CharField(max_length=262)),
                        ("document", models.JSONField()),
                        ("expires_at", models.DateTimeField()),
                    ],
                ),
            ],
        ),
        migrations.RunPython(index, migrations.RunPython.noop),
    ]
