from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed


class OpsConfig(AppConfig):
    name = "ops"

    def ready(self) -> None:
        from ops import logins  # it needs the models

        user_login_failed.connect(logins.record_failure)
