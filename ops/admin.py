"""What the admin has: conversations, the audit log, and tokens to be revoked; no page for the secrets of the second
factor."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from ops import audit, tokens
from ops.console import conversations, corrupt  # noqa: F401  (registers them)
from ops.console.base import ReadOnly
from ops.errors import OperatorError
from ops.models import AuditEntry, IssuedToken

# Their pages would show the secrets of others. Each user sets up their own at /admin/second-factor/.
admin.site.unregister([StaticDevice, TOTPDevice])


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    """What operators did, newest first."""

    list_display = ("at", "who", "action", "outcome", "reason")
    list_filter = ("action", "who")
    search_fields = ("who", "action", "reason", "outcome")
    date_hierarchy = "at"


@admin.register(IssuedToken)
class IssuedTokenAdmin(ReadOnly):
    """The tokens that were issued, newest first; who has the permission `ops.revoke_token` may revoke them."""

    list_display = ("id", "name", "tenant", "scopes", "key", "created_at", "until", "revoked_at", "revoked_by")
    list_filter = ("key", "name")
    search_fields = ("id", "name", "tenant")
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("ops.revoke_token"))

    @admin.action(description="Revoke the selected tokens for good", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> None:
        """Do for each what `token revoke` does."""
        who = request.user.get_username()
        for one in queryset:
            try:
                done = tokens.revoke(one.id, who)
            except OperatorError as error:
                messages.error(request, f"{one}: {error}")
                audit.record("token", f"failed: {error}", who=who, after={"action": "revoke", "id": one.id})
                continue
            after = {"action": "revoke", "id": one.id, "noted": done.noted, "missed": done.missed}
            audit.record("token", "done", who=who, after=after)
            where = f"; not noted in {' and '.join(done.missed)}: do it again when that is back" if done.missed else ""
            messages.add_message(request, messages.WARNING if where else messages.SUCCESS, f"revoked {one}{where}")
