"""The addresses for probes, Prometheus and people on call."""

from django.urls import URLPattern, path

from conversations.probes import views

PROBES = {
    "healthz": views.healthz,
    "livez": views.livez,
    "readyz": views.readyz,
    "version": views.version,
    "metrics": views.metrics_page,
}
urlpatterns: list[URLPattern] = [path(f"{name}{slash}", view) for name, view in PROBES.items() for slash in ("", "/")]
