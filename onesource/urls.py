"""Every address of the service."""

from csp.decorators import csp_update
from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

handler400 = "onesource.errors.bad_request"
handler403 = "onesource.errors.forbidden"
handler404 = "onesource.errors.no_such_page"
handler500 = "onesource.errors.server_error"

# Nothing of it is inline but the icons in Swagger UI's own style sheet.
_docs = csp_update({"img-src": ["data:"]})(
    SpectacularSwaggerSplitView.as_view(url_name="schema", template_name="page/docs.html")
)

urlpatterns = [
    path("", include("page.urls")),
    path("api/chat/", include("conversations.api.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", _docs, name="docs"),
    path("admin/", admin.site.urls),
    path("", include("conversations.probes.urls")),
]
