"""Every setting, read from the environment beside its default: the only reader of the environment.

A value that cannot be used stops the start with a message that names its variable. Secrets may come
from a file instead: `NAME_FILE` holds the path.
"""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from csp.constants import NONE, SELF
from django.core.checks.security import base as security
from django.core.exceptions import ImproperlyConfigured
from environs import EnvError, FileAwareEnv, validate

import embedded
from conversations.addresses import is_loopback, is_private
from conversations.stores import ALIASES, BACKENDS
from conversations.stores.redis.address import (
    SCHEMES,
    check_options,
    cluster_in,
    is_of_cluster,
    is_of_sentinels,
    sentinels_in,
)
from conversations.stores.sessions import PREFIX

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

env = FileAwareEnv(strip_whitespace=True)


def _one_of(*words: str) -> Any:
    return validate.OneOf(words, error=f"must be one of: {', '.join(words)}")


def _at_least(least: int) -> Any:
    return validate.Range(min=least, error=f"must be a whole number of at least {least}")


def _read(name: str, default: Any, kind: str = "str", **options: Any) -> Any:
    """Return the variable's value, an empty one counting as unset; raise ImproperlyConfigured naming it."""
    try:
        if not env.str(name, default="").strip():
            return default
        return getattr(env, kind)(name, default, **options)
    except (EnvError, ValueError) as error:
        reason = str(error).removeprefix(f'Environment variable "{name}" invalid: ').strip("[]'")
        raise ImproperlyConfigured(f"{name} is not usable: {reason}") from None


def _url(name: str, *schemes: str) -> str:
    """Return the address, "" when unset; its value is never repeated in an error: it may hold a password."""
    value = str(_read(name, ""))
    try:
        parts = urlsplit(value)
        usable = not value or (parts.scheme in schemes and bool(parts.hostname))
    except ValueError:
        usable = False
    if not usable:
        raise ImproperlyConfigured(f"{name} is not usable: it must look like {schemes[0]}://host:port")
    return value


def _redis_url() -> str:
    value = str(_read("REDIS_URL", ""))
    try:
        check_options(value)
        if is_of_sentinels(value):
            sentinels_in(value)
        elif is_of_cluster(value):
            cluster_in(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"REDIS_URL is not usable: {error}") from None
    return value if is_of_sentinels(value) or is_of_cluster(value) else _url("REDIS_URL", *SCHEMES)


def _switch(name: str, default: str) -> bool:
    return bool(_read(name, default, validate=_one_of("0", "1")) == "1")


def _is_weak(secret: str) -> bool:
    """Return whether Django's own check would warn of it (security.W009)."""
    return (
        len(secret) < security.SECRET_KEY_MIN_LENGTH
        or len(set(secret)) < security.SECRET_KEY_MIN_UNIQUE_CHARACTERS
        or secret.startswith(security.SECRET_KEY_INSECURE_PREFIX)
    )


def _keys(value: str) -> dict[str, str]:
    """Return the secret of each key by its id, in their order; a secret is never repeated in an error."""
    pairs = [pair.strip().partition(":") for pair in value.split(",") if pair.strip()]
    keys = {name: secret for name, _, secret in pairs}
    if len(keys) < len(pairs):
        raise ImproperlyConfigured("CHAT_KEYS is not usable: two keys have the same id")
    for number, (name, secret) in enumerate(keys.items(), 1):
        if not secret or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):  # what is before a colon may be the secret
            problem = f"key {number} must look like id:secret, with an id of 1 to 32 of the characters A-Z a-z 0-9 _ -"
        elif name == "main":
            problem = "the id main is that of the key made of SECRET_KEY"
        elif len(secret) < 32 or len(set(secret)) < security.SECRET_KEY_MIN_UNIQUE_CHARACTERS:
            least = security.SECRET_KEY_MIN_UNIQUE_CHARACTERS
            problem = f"the secret of key {number} needs 32 characters or more, {least} of them different"
        else:
            continue
        raise ImproperlyConfigured(f"CHAT_KEYS is not usable: {problem}")
    return keys


# --- The two stores --------------------------------------------------------------------------------
VAR_DIR = Path(_read("VAR_DIR", str(BASE_DIR / "var")))
REDIS_URL = _redis_url()
MONGO_URL = _url("MONGO_URL", "mongodb", "mongodb+srv")
EMBEDDED_REDIS = not REDIS_URL
EMBEDDED_MONGO = not MONGO_URL
EMBEDDED = EMBEDDED_REDIS or EMBEDDED_MONGO
# A store that a variable names is not this machine's own: what embedded stores make easy would open it to others.
_ALL_EMBEDDED = EMBEDDED_REDIS and EMBEDDED_MONGO
REDIS_URL = REDIS_URL or embedded.url(VAR_DIR, "redis")
MONGO_URL = MONGO_URL or embedded.url(VAR_DIR, "mongo")

# The addresses of other stores in use. CACHES and DATABASES have those of Redis and MongoDB.
STORE_URLS = {name: _url(f"{name.upper()}_URL", *BACKENDS[name].schemes) for name in ALIASES if BACKENDS[name].schemes}
CONV_STORE_PRIMARY = _read("CONV_STORE_PRIMARY", ALIASES[0], validate=_one_of(*ALIASES))
CONV_DUAL_WRITE = _switch("CONV_DUAL_WRITE", "0")
CONV_TTL_SECONDS = _read("CONV_TTL_SECONDS", 2_592_000, "int", validate=_at_least(1))
CONV_MAX_TURNS = _read("CONV_MAX_TURNS", 16, "int", validate=_at_least(1))
CONV_MAX_BYTES = _read("CONV_MAX_BYTES", 262_144, "int", validate=_at_least(1024))
REDIS_SOCKET_TIMEOUT_MS = _read("REDIS_SOCKET_TIMEOUT_MS", 200, "int", validate=_at_least(1))
REDIS_SENTINEL_PASSWORD = _read("REDIS_SENTINEL_PASSWORD", "")
REDIS_CONNECT_TIMEOUT_MS = _read("REDIS_CONNECT_TIMEOUT_MS", 100, "int", validate=_at_least(1))

# --- Answering -------------------------------------------------------------------------------------
ANSWERER = _read("ANSWERER", "recall")
LLM_TIMEOUT_MS = _read("LLM_TIMEOUT_MS", 20_000, "int", validate=_at_least(1))
LLM_MODEL = _read("LLM_MODEL", "")
LLM_BASE_URL = _url("LLM_BASE_URL", "https", "http")
LLM_API_KEY = _read("LLM_API_KEY", "")
SYSTEM_PROMPT = _read("SYSTEM_PROMPT", "")
LLM_TEMPERATURE = _read(
    "LLM_TEMPERATURE", "", "float", validate=validate.Range(min=0, max=2, error="must be a number from 0 to 2")
)
LLM_MAX_TOKENS = _read("LLM_MAX_TOKENS", "", "int", validate=_at_least(1))
LLM_WINDOW_TOKENS = _read("LLM_WINDOW_TOKENS", 16_384, "int", validate=_at_least(1))

# --- Who may ask, and from where -------------------------------------------------------------------
# An embedded store means one person's machine; otherwise whatever stands in front must be able to reach us.
BIND = _read("BIND", "127.0.0.1" if EMBEDDED else "0.0.0.0")  # noqa: S104
BIND_IS_LOOPBACK = is_loopback(BIND)
CHAT_AUTH = _read(
    "CHAT_AUTH", "open" if _ALL_EMBEDDED and BIND_IS_LOOPBACK else "token", validate=_one_of("token", "open")
)
# An open service cannot distinguish clients, so there is no limit unless one is set.
CHAT_RATE = _read(
    "CHAT_RATE",
    "30/min" if CHAT_AUTH == "token" else "",
    validate=validate.Regexp(r"[1-9][0-9]*/(s|sec|second|m|min|minute|h|hour|d|day)\Z", error="must look like 30/min"),
)
CHAT_CONCURRENT = _read(
    "CHAT_CONCURRENT",
    64 if CHAT_AUTH == "token" else "",
    "int",
    validate=validate.Range(min=1, max=10_000, error="must be a whole number from 1 to 10000"),
)
TENANT_MAX_BYTES = _read("TENANT_MAX_BYTES", "", "int", validate=_at_least(1))
SECRET_KEY = _read("SECRET_KEY", "")
if not SECRET_KEY and _ALL_EMBEDDED:
    try:
        SECRET_KEY = embedded.dev_secret(VAR_DIR)
    except embedded.EmbeddedError as error:
        raise ImproperlyConfigured(str(error)) from None
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set: with REDIS_URL or MONGO_URL set it is needed (SECRET_KEY or SECRET_KEY_FILE)"
    )
if _is_weak(SECRET_KEY) and not (_ALL_EMBEDDED and BIND_IS_LOOPBACK):
    raise ImproperlyConfigured(
        f"SECRET_KEY is not usable: it needs {security.SECRET_KEY_MIN_LENGTH} characters or more,"
        f" {security.SECRET_KEY_MIN_UNIQUE_CHARACTERS} of them different,"
        f" and not to begin with {security.SECRET_KEY_INSECURE_PREFIX}"
    )
CHAT_KEYS = _keys(_read("CHAT_KEYS", ""))
# An OpenID Connect issuer whose tokens are accepted beside our own: docs/tokens.md.
OIDC_ISSUER = _url("OIDC_ISSUER", "https", "http")
OIDC_AUDIENCE = _read("OIDC_AUDIENCE", "")
OIDC_JWKS_URL = _url("OIDC_JWKS_URL", "https", "http")
OIDC_TENANT_CLAIM = _read("OIDC_TENANT_CLAIM", "tenant")
OIDC_SCOPES_CLAIM = _read("OIDC_SCOPES_CLAIM", "scope")
for _name, _value in (("OIDC_ISSUER", OIDC_ISSUER), ("OIDC_JWKS_URL", OIDC_JWKS_URL)):
    if _value and not is_private(_value):
        raise ImproperlyConfigured(f"{_name} is not usable: it must be https, or http on this machine")
if OIDC_ISSUER and not OIDC_AUDIENCE:
    raise ImproperlyConfigured("OIDC_AUDIENCE is not set: with OIDC_ISSUER it is needed, or tokens for others would do")
if not OIDC_ISSUER and (OIDC_AUDIENCE or OIDC_JWKS_URL):
    raise ImproperlyConfigured("OIDC_ISSUER is not set: with OIDC_AUDIENCE or OIDC_JWKS_URL it is needed")
ALLOWED_HOSTS = _read("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"], "list")
DEBUG = _switch("DEBUG", "0")
_PORTS = validate.Range(min=1, max=65_535, error="must be 1 to 65535")
PORT = _read("PORT", 8001, "int", validate=_PORTS)
# Probes and metrics, in a process of their own: they answer whatever the clients of PORT do.
MANAGEMENT_PORT = _read("MANAGEMENT_PORT", 8002, "int", validate=_PORTS)
if MANAGEMENT_PORT == PORT:
    raise ImproperlyConfigured(f"MANAGEMENT_PORT is not usable: it must differ from PORT, which is {PORT}")
WEB_CONCURRENCY = _read("WEB_CONCURRENCY", 2, "int", validate=_at_least(1))
WEB_THREADS = _read("WEB_THREADS", 256, "int", validate=_at_least(1))

# One variable for all that needs TLS in front of us; plain http on PORT works without it.
HTTPS = _switch("HTTPS", "0")
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
# A promise for hosts that are not ours, which browsers keep for a year and their lists for longer.
HSTS_SUBDOMAINS = _switch("HSTS_SUBDOMAINS", "0")
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS and HSTS_SUBDOMAINS
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]  # both ask for HSTS_SUBDOMAINS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^(healthz|livez|readyz|metrics)/?$"]  # probes speak plain http
CSRF_TRUSTED_ORIGINS = [f"https://{host.lstrip('.')}" for host in ALLOWED_HOSTS if HTTPS and host != "*"]
X_FRAME_OPTIONS = "DENY"
# Of every page: nothing inline and nothing from elsewhere. Markup that got into a page would still not run.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "connect-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
CSRF_FAILURE_VIEW = "onesource.errors.csrf_failure"

# --- Logins to the admin ---------------------------------------------------------------------------
ADMIN_OTP = _switch("ADMIN_OTP", "0")
ADMIN_LOCKOUT_SECONDS = _read("ADMIN_LOCKOUT_SECONDS", 900, "int", validate=_at_least(1))
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_HANDLER = "ops.logins.Handler"  # which has the limits, in the order of these parameters
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address", "username"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(seconds=ADMIN_LOCKOUT_SECONDS)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else who goes on trying could keep others out, and fill tables
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True  # the audit log has what is kept
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username", "otp_token", "csrfmiddlewaretoken"]
AXES_CLIENT_IP_CALLABLE = "ops.logins.address"
AXES_LOCKOUT_CALLABLE = "ops.logins.locked_out"
OTP_TOTP_ISSUER = "onesource"

# --- Backups ---------------------------------------------------------------------------------------
BACKUP_KEY_FILE = _read("BACKUP_KEY_FILE", "")  # the path alone: ops/backup/keys.py reads the file, for a backup

# --- Django ----------------------------------------------------------------------------------------
ROOT_URLCONF = "onesource.urls"
WSGI_APPLICATION = "onesource.wsgi.application"
INSTALLED_APPS = [
    "ops.site.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
    "conversations",
    "ops",
    "page",
]
# OpenTelemetry's own variable, which its exporter reads too. Unset, nothing of it is imported.
OTEL_EXPORTER_OTLP_ENDPOINT = _url("OTEL_EXPORTER_OTLP_ENDPOINT", "http", "https")
MIDDLEWARE = [
    "telemetry.requests.counted",
    *(["telemetry.traces.traced"] if OTEL_EXPORTER_OTLP_ENDPOINT else []),
    "django.middleware.security.SecurityMiddleware",
    "onesource.middleware.PagesOnly",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    *(["django_otp.middleware.OTPMiddleware"] if ADMIN_OTP else []),
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
APPEND_SLASH = False  # the trailing slash is optional, and a redirected POST would lose its body
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # nothing to collect: two small packages bring every static file
MAX_BODY_BYTES = _read("MAX_BODY_BYTES", 524_288, "int", validate=_at_least(1024))
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
FILE_UPLOAD_HANDLERS = ["conversations.api.parsers.DiscardFiles"]  # no page takes a file
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# --- Databases and cache ---------------------------------------------------------------------------
try:
    _default = dj_database_url.parse(
        str(_read("DATABASE_URL", f"sqlite:///{VAR_DIR / 'onesource.sqlite3'}")),
        conn_max_age=60,
        conn_health_checks=True,  # a restart of the database breaks the connections that are kept
    )
except ValueError:
    raise ImproperlyConfigured(
        "DATABASE_URL is not usable: it must look like postgres://user:password@host:5432/name"
    ) from None
if _default["ENGINE"].endswith("sqlite3"):
    _default["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
elif _default["ENGINE"].endswith("postgresql"):
    # libpq has none: an operator's command would wait for minutes for a database that does not even refuse.
    _default["OPTIONS"] = {"connect_timeout": 3, **_default.get("OPTIONS", {})}
# How many servers may run at the same time: each would have an SQLite of its own.
REPLICAS = _read("REPLICAS", 1, "int", validate=_at_least(1))

# Long enough for sixteen writers queueing at one long document, short enough that a turn which finds both
# stores frozen still says so within a second.
MONGO_TIMEOUT_MS = _read("MONGO_TIMEOUT_MS", 600, "int", validate=_at_least(1))
_ENGINES = {"mongodb": "django_mongodb_backend", "djongo": "conversations.stores.mongo.djongo"}
MONGO_ENGINE = _read("MONGO_ENGINE", "mongodb", validate=_one_of(*_ENGINES))  # docs/adr/0001-mongo-engine.md
if MONGO_ENGINE == "djongo":
    from conversations.stores.mongo import djongo

    if _problem := djongo.problem():
        raise ImproperlyConfigured(f"MONGO_ENGINE is not usable: {_problem}")
DATABASES = {
    "default": _default,
    "mongo": {
        "ENGINE": _ENGINES[MONGO_ENGINE],
        "HOST": MONGO_URL,
        "NAME": urlsplit(MONGO_URL).path.strip("/") or "onesource",
        "OPTIONS": {
            "serverSelectionTimeoutMS": 200,
            # Also how long the driver's monitor waits for a heartbeat: a busy server that misses one has every
            # operation under way cancelled.
            "connectTimeoutMS": MONGO_TIMEOUT_MS,
            "socketTimeoutMS": MONGO_TIMEOUT_MS,
            "timeoutMS": MONGO_TIMEOUT_MS,
            "heartbeatFrequencyMS": 500,
            "retryReads": False,
            "retryWrites": False,
            "w": "majority",
            "journal": True,
            "maxPoolSize": WEB_THREADS + 4,
        },
    },
}


class _NoGdal:
    """The path of a library that is not there: the backend then does without geography."""

    def __fspath__(self) -> str:
        raise ImproperlyConfigured("nothing here has to do with geography")


# Unset, each start of each process would look for GDAL three times, which takes half a second.
GDAL_LIBRARY_PATH = _NoGdal()
DATABASE_ROUTERS = ["conversations.routers.ConversationRouter"]

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "conversations": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": (REDIS_URL,),  # django-redis would cut a text at its commas
        "TIMEOUT": CONV_TTL_SECONDS,
        "KEY_PREFIX": PREFIX,
        "KEY_FUNCTION": "conversations.stores.sessions.make_key",
        "REVERSE_KEY_FUNCTION": "conversations.stores.sessions.session_of",
        "OPTIONS": {
            "CLIENT_CLASS": "conversations.stores.redis.client.HistoryClient",
            "SERIALIZER": "conversations.stores.redis.lines.HistorySerializer",
            "IGNORE_EXCEPTIONS": False,  # an outage is never read as emptiness
            "SOCKET_TIMEOUT": REDIS_SOCKET_TIMEOUT_MS / 1000,
            "SOCKET_CONNECT_TIMEOUT": REDIS_CONNECT_TIMEOUT_MS / 1000,
            "PARSER_CLASS": "conversations.stores.redis.connection.DeadlineParser",
            "CONNECTION_FACTORY": "conversations.stores.redis.cluster.ClusterConnectionFactory",
            "CONNECTION_POOL_KWARGS": {"max_connections": 2 * WEB_THREADS + 16},
        },
    },
}

# --- REST ------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["conversations.api.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["conversations.api.authentication.MayChat"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["conversations.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "conversations.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
    "NUM_PROXIES": 1 if HTTPS else 0,  # with nothing in front, X-Forwarded-For is whatever a client likes
    "COMPACT_JSON": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "onesource",
    "DESCRIPTION": "A chat service that keeps conversations in Redis and in MongoDB.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "ENUM_NAME_OVERRIDES": {
        "StoreEnum": "conversations.api.output_serializers.STORES",
        "RoleEnum": ["user", "assistant"],
        "ContextEnum": ["full", "behind"],
    },
}

# --- Metrics and logs ------------------------------------------------------------------------------
# A person at a terminal reads what went wrong; a program, which reads everything else, gets every event.
LOG_FORMAT = _read("LOG_FORMAT", "text" if sys.stderr.isatty() else "json", validate=_one_of("json", "text"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "telemetry.logs.JsonFormatter"},
        "text": {"()": "telemetry.logs.TextFormatter"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "level": "INFO" if LOG_FORMAT == "json" else "WARNING",
            "filters": ["no_paths", "of_request"],
        }
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "filters": {"no_paths": {"()": "telemetry.logs.NoPaths"}, "of_request": {"()": "telemetry.logs.OfRequest"}},
    "loggers": {
        "axes": {"level": "ERROR"},  # it names users; `login_failed` has what is to be known
        "django.db.backends": {"level": "INFO"},
        "pymongo": {"level": "WARNING"},
        "uvicorn": {"level": "ERROR"},  # it logs each malformed request as a warning
        "openai": {"level": "WARNING"},
        "opentelemetry": {"level": "ERROR"},  # it warns of each attempt to reach a collector
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
    },
}
