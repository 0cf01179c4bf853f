"""Where a conversation is in the list, and the indexes of it."""

from typing import Any

from django.db import migrations, models

from conversations.models import ALIAS
from conversations.stores.mongo import indexes


def index(apps: Any, schema_editor: Any) -> None:
    """Create the indexes. The documents that are there get their places from the watcher."""
    if schema_editor.connection.alias == ALIAS:
        indexes.create()


class Migration(migrations.Migration):
    dependencies = [("conversations", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddField(
                    "conversation",
                    "place",
                    models.CharField(
                        help_text="The same after its tenant: where it is in the tenant's list.",
                        max_length=153,
                        null=True,
                    ),
                ),
                migrations.AlterField(
                    "conversation",
                    "updated_at",
                    models.DateTimeField(help_text="The time of the newest message that it ever had."),
                ),
            ],
        ),
        migrations.RunPython(index, migrations.RunPython.noop),
    ]
