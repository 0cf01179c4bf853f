"""The addresses for probes, Prometheus and people on call."""

from django.urls import URLPattern, path

from conversations.runtime import health

PROBES = {
    "healthz": health.healthz,
    "livez": health.livez,
    "readyz": health.readyz,
    "version": health.version,
    "metrics": health.metrics_page,
}
urlpatterns: list[URLPattern] = [path(f"{name}{slash}", view) for name, view in PROBES.items() for slash in ("", "/")]
