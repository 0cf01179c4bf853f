"""What probes, scrapers and on-call people ask."""

from django.urls import URLPattern, path

from ops import health

urlpatterns: list[URLPattern] = [
    path(f"{name}{slash}", view)
    for name, view in (
        ("healthz", health.healthz),
        ("livez", health.livez),
        ("readyz", health.readyz),
        ("version", health.version),
        ("metrics", health.metrics_page),
    )
    for slash in ("", "/")
]
