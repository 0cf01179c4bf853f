"""Every address of the service."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

handler400 = "conversations.api.errors.bad_request"
handler403 = "conversations.api.errors.forbidden"
handler404 = "conversations.api.errors.no_such_page"
handler500 = "conversations.api.errors.server_error"

urlpatterns = [
    path("", include("page.urls")),
    path("api/chat/", include("conversations.api.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    path("admin/", admin.site.urls),
    path("", include("conversations.probes.urls")),
]
