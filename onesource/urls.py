"""Every address of the service."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

handler400 = "onesource.errors.bad_request"
handler403 = "onesource.errors.forbidden"
handler404 = "onesource.errors.no_such_page"
handler500 = "onesource.errors.server_error"

_DOCS = {"url_name": "schema", "template_name": "page/docs.html"}  # of which nothing is inline

urlpatterns = [
    path("", include("page.urls")),
    path("api/chat/", include("conversations.api.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(**_DOCS), name="docs"),
    path("admin/", admin.site.urls),
    path("", include("conversations.probes.urls")),
]
