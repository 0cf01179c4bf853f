"""System checks of settings that do not stop the start but do not do what they seem to."""

from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.db import connection
from django.utils.module_loading import import_string

from conversations.answerers import BUILT_IN
from conversations.stores import ALIASES, unusable_files

MODELS = ("openai", "anthropic")  # answerers that bear the name of their package


@register("onesource")
def answerer(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The answerer can be imported, and one that calls a model knows which."""
    path = BUILT_IN.get(settings.ANSWERER, settings.ANSWERER)
    try:
        import_string(path)
    except ImportError as error:
        return [
            Error(
                f"ANSWERER={settings.ANSWERER} cannot be imported: {error}",
                hint=f"Use one of {', '.join(BUILT_IN)}, or the dotted path of a class.",
                id="conversations.E001",
            )
        ]
    if settings.ANSWERER in MODELS and not find_spec(settings.ANSWERER):
        return [
            Error(
                f"ANSWERER={settings.ANSWERER} needs a package that is not installed.",
                hint="Run script/bootstrap while ANSWERER is set, or pip install -r requirements-models.txt.",
                id="conversations.E003",
            )
        ]
    if settings.ANSWERER in MODELS and not settings.LLM_MODEL:
        return [
            Error(
                f"ANSWERER={settings.ANSWERER} needs LLM_MODEL.",
                hint="Set LLM_MODEL to the name of the model to ask.",
                id="conversations.E002",
            )
        ]
    return []


@register("onesource")
def traces(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What exports traces is installed where they are asked for."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT or _is_installed("opentelemetry.exporter.otlp.proto.http"):
        return []
    return [
        Error(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs packages that are not installed.",
            hint="Run script/bootstrap while it is set, or pip install -r requirements-traces.txt.",
            id="conversations.E004",
        )
    ]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


@register("onesource")
def default_of_all(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Several servers have one database for Django's own tables: what one records the others have to see."""
    if settings.REPLICAS == 1 or connection.vendor != "sqlite":
        return []
    return [
        Error(
            f"REPLICAS={settings.REPLICAS} needs a database that all of them share, and SQLite is each one's own.",
            hint="Set DATABASE_URL to a PostgreSQL, or run one server with REPLICAS=1.",
            id="conversations.E005",
        )
    ]


@register("onesource")
def files_of_addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The certificates and keys that the stores' addresses name are there, and are such."""
    found = [unusable_files(alias) for alias in ALIASES]
    hint = "Its path is read by the user that runs the service; the file is in PEM."
    return [Error(f"{one}.", hint=hint, id="conversations.E006") for one in found if one]


@register("onesource")
def ttl(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Conversations live long enough to be conversations."""
    if settings.CONV_TTL_SECONDS >= 60:
        return []
    return [
        Warning(
            f"CONV_TTL_SECONDS={settings.CONV_TTL_SECONDS} forgets a conversation within a minute.",
            hint="The unit is seconds: 30 days are 2592000.",
            id="conversations.W001",
        )
    ]


@register("onesource", deploy=True)
def open_to_the_network(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Only who is on this machine may chat without a token."""
    if settings.CHAT_AUTH == "token" or settings.BIND_IS_LOOPBACK:
        return []
    return [
        Warning(
            f"CHAT_AUTH=open lets anybody chat who reaches BIND={settings.BIND}.",
            hint="Set CHAT_AUTH=token, or BIND=127.0.0.1 where a proxy on this machine asks who they are.",
            id="conversations.W002",
        )
    ]


@register("onesource", deploy=True)
def plain_backups(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Backups are of no use to who is not meant to have them. No warning: the disk itself may be encrypted."""
    if settings.BACKUP_KEY_FILE:
        return []
    return [
        Info(
            "BACKUP_KEY_FILE is not set: backups are neither encrypted nor authenticated.",
            hint="Set it to a file with keys (docs/operating.md), or keep backups where only operators read and write.",
            id="conversations.I001",
        )
    ]
