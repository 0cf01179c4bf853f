"""The admin, with a status page."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin import apps
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, URLResolver, path, reverse


class AdminConfig(apps.AdminConfig):
    default_site = "ops.site.Site"


class Site(admin.AdminSite):
    site_header = site_title = "onesource"

    def has_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may see the admin: with ADMIN_OTP only by a second factor."""
        user: Any = request.user
        return super().has_permission(request) and (not settings.ADMIN_OTP or user.is_verified())

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Return the page to log in; who has logged in and has no second factor yet is led to its page."""
        from ops import second_factor  # as in get_urls

        if second_factor.is_missing(request.user):
            return redirect("admin:second_factor")
        return super().login(request, extra_context)

    @property
    def login_form(self) -> Any:  # type: ignore[override]
        from ops import second_factor

        return second_factor.LoginForm if settings.ADMIN_OTP else None

    @property
    def login_template(self) -> str:  # type: ignore[override]
        return "admin/ops/login_otp.html" if settings.ADMIN_OTP else "admin/ops/login.html"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        from ops import pages, second_factor  # they need the models, which are not there yet when this module is
        from ops.actions import views

        def acting(route: str, view: views.View, name: str) -> URLPattern:
            return path(f"actions/{route}", views.needs_default(self.admin_view(view)), name=name)

        return [
            path("second-factor/", second_factor.page, name="second_factor"),
            path("runbook/", self.admin_view(pages.runbook_page), name="runbook"),
            path("status/", self.admin_view(pages.status_page), name="status"),
            acting("", views.index, "actions"),
            acting("runs/<int:pk>/", views.run, "run"),
            acting("runs/<int:pk>/part/", views.part, "run_part"),
            acting("dual-write/<slug:wanted>/", views.switch_dual_write, "dual_write"),
            acting("<slug:name>/plan/", views.plan, "plan"),
            path("status/live/", self.admin_view(pages.status_live), name="status_live"),
            path("status/charts/", self.admin_view(pages.status_charts), name="status_charts"),
            *super().get_urls(),
        ]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return what the index and the sidebar list: the status first."""
        from ops.actions.views import may_act  # as in get_urls

        listed = super().get_app_list(request, app_label)
        if app_label:
            return listed
        pages = [_listed("Status", "status"), _listed("Runbook", "runbook")]
        if may_act(request.user):
            pages.append(_listed("Actions", "actions"))
        if settings.ADMIN_OTP:
            pages.append(_listed("Second factor", "second_factor"))
        url = reverse("admin:status")
        ours = {"name": "Operation", "app_label": "operation", "app_url": url, "has_module_perms": True}
        return [{**ours, "models": pages}, *listed]


def _listed(name: str, url: str) -> dict[str, Any]:
    at = reverse(f"admin:{url}")
    return {"name": name, "object_name": name.replace(" ", ""), "admin_url": at, "add_url": None, "view_only": True}
