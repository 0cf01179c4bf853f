"""The settings of the bare views: the web server's and the driver's as onesource has them, and no more of Django."""

from onesource.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.bare.urls"
WSGI_APPLICATION = "onesource.wsgi.application"
MIDDLEWARE: list[str] = []
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": None,
}
