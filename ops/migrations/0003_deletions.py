"""The ledger of deletions; the time when this was applied is when the ledger begins, by this name's end."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ops", "0002_issued_tokens")]

    operations = [
        migrations.CreateModel(
            name="Deletion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("session", models.CharField(max_length=257)),
                ("upto", models.CharField(max_length=36)),
                ("at", models.DateTimeField()),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("session", "upto"), name="one_row_a_deletion")],
            },
        ),
    ]
