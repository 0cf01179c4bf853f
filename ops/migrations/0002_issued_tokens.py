from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ops", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="IssuedToken",
            fields=[
                ("id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=128)),
                ("tenant", models.CharField(blank=True, max_length=128)),
                ("scopes", models.JSONField(default=list)),
                ("key", models.CharField(max_length=32)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("until", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_by", models.CharField(blank=True, max_length=150)),
            ],
            options={
                "ordering": ("-created_at",),
                "permissions": (("revoke_token", "Can revoke a token"),),
            },
        ),
    ]
