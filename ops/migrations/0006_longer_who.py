"""A user name of the admin has up to 150 characters, and who did what says more than that name."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ops", "0005_sample")]

    operations = [
        migrations.AlterField(model_name="auditentry", name="who", field=models.CharField(max_length=255)),
    ]
