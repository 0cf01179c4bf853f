import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ops", "0003_deletions"),
    ]

    operations = [
        migrations.CreateModel(
            name="Run",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("action", models.CharField(max_length=20)),
                ("words", models.JSONField(default=list)),
                ("applies", models.BooleanField()),
                ("who", models.CharField(max_length=200)),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("since", models.FloatField(default=0.0)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("done", "Done"),
                            ("trouble", "ended with trouble"),
                            ("failed", "could not be done"),
                            ("interrupted", "Interrupted"),
                        ],
                        default="running",
                        max_length=20,
                    ),
                ),
                ("step", models.CharField(blank=True, max_length=100)),
                ("done", models.BigIntegerField(default=0)),
                ("of", models.BigIntegerField(default=0)),
                ("lines", models.JSONField(default=list)),
                ("report", models.JSONField(default=dict)),
                ("outcome", models.CharField(blank=True, max_length=500)),
                ("exit_code", models.SmallIntegerField(null=True)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("beat_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "plan",
                    models.OneToOneField(
                        null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="done_by", to="ops.run"
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "permissions": (
                    ("run_failover", "Can run failover"),
                    ("run_failback", "Can run failback"),
                    ("run_reconcile", "Can run reconcile"),
                    ("run_trim", "Can run trim"),
                    ("run_backup", "Can run backup"),
                    ("switch_dual_write", "Can switch dual write on and off"),
                ),
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("applies", True), ("state", "running")),
                        fields=("applies",),
                        name="one_action_at_a_time",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("applies", False), ("state", "running")),
                        fields=("who",),
                        name="one_plan_of_each_at_a_time",
                    ),
                ],
            },
        ),
    ]
