"""An error as a page in the admin's look. It asks no database: it is shown where one is out too."""

from django.contrib import admin
from django.http import HttpResponse
from django.template.loader import render_to_string


def error_page(status: int, title: str, detail: str) -> HttpResponse:
    """Return the page, which nothing may keep."""
    context = {
        "title": title,
        "detail": detail,
        "site_header": admin.site.site_header,
        "site_title": admin.site.site_title,
    }
    text = render_to_string("admin/ops/error.html", context)
    return HttpResponse(text, status=status, headers={"Cache-Control": "no-store"})
