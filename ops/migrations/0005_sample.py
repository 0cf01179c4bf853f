"""The figures of the last day, for the charts of the status page."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ops", "0004_runs")]

    operations = [
        migrations.CreateModel(
            name="Sample",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("machine", models.CharField(max_length=255)),
                ("at", models.DateTimeField(db_index=True)),
                ("p95_ms", models.FloatField(null=True)),
                ("memory_bytes", models.FloatField(null=True)),
                ("hits", models.FloatField(null=True)),
                ("reads", models.FloatField(null=True)),
                ("persist_errors", models.FloatField(null=True)),
                ("unsynced", models.FloatField(null=True)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("machine", "at"), name="one_row_a_minute")],
            },
        ),
    ]
