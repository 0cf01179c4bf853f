"""The audit log in the admin, to be read."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from ops.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(admin.ModelAdmin):
    """What operators did, newest first."""

    list_display = ("at", "who", "action", "outcome", "reason")
    list_filter = ("action", "who")
    search_fields = ("who", "action", "reason", "outcome")
    date_hierarchy = "at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
