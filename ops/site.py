"""The admin, with a status page."""

from typing import Any

from django.contrib import admin
from django.contrib.admin import apps
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, path, reverse


class AdminConfig(apps.AdminConfig):
    default_site = "ops.site.Site"


class Site(admin.AdminSite):
    site_header = site_title = "onesource"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        from ops import pages  # it needs the models, which are not there yet when this module is

        return [
            path("status/", self.admin_view(pages.status_page), name="status"),
            path("status/switch/", self.admin_view(pages.switch), name="switch"),
            *super().get_urls(),
        ]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return what the index and the sidebar list: the status first."""
        listed = super().get_app_list(request, app_label)
        if app_label:
            return listed
        url = reverse("admin:status")
        page = {"name": "Status", "object_name": "Status", "admin_url": url, "add_url": None, "view_only": True}
        ours = {"name": "Operation", "app_label": "operation", "app_url": url, "has_module_perms": True}
        return [{**ours, "models": [page]}, *listed]
