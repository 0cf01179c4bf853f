from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed
from django.db.models.signals import post_migrate


class OpsConfig(AppConfig):
    name = "ops"

    def ready(self) -> None:
        from ops import logins, support  # they need the models

        user_login_failed.connect(logins.record_failure)
        post_migrate.connect(support.make_group, sender=self)
