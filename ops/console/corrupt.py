"""Conversations in the admin that were no history and were quarantined."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.timezone import localtime

from conversations.errors import StoreUnavailable
from conversations.models import CorruptConversation
from conversations.stores.mongo import corrupt as corrupt_documents
from conversations.stores.sessions import session_of
from ops.console.base import ReadOnly


def _needs_mongo(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Answer with an error page where MongoDB is unavailable; allow it more time than a turn."""

    @wraps(view)
    def wrapped(self: admin.ModelAdmin, request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        try:
            with corrupt_documents.readable():
                return view(self, request, *args, **options)
        except StoreUnavailable:
            messages.error(request, "MongoDB cannot be read now, and corrupt conversations are kept there alone.")
            context = {**self.admin_site.each_context(request), "title": capfirst(self.opts.verbose_name_plural)}
            return TemplateResponse(request, "admin/base_site.html", context, status=503)

    return wrapped


@admin.register(CorruptConversation)
class CorruptConversationAdmin(ReadOnly):
    """Documents that were no history and were quarantined; shown as text."""

    list_display = ("session", "quarantined", "expires_at")
    search_fields = ("key",)
    fields = ("session", "quarantined", "expires_at", "text")
    readonly_fields = fields

    changelist_view = _needs_mongo(ReadOnly.changelist_view)
    change_view = _needs_mongo(ReadOnly.change_view)
    history_view = _needs_mongo(ReadOnly.history_view)
    delete_view = _needs_mongo(ReadOnly.delete_view)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CorruptConversation]:
        """Return them without their documents: each may have 16 MB, and values that JSONField cannot read."""
        return super().get_queryset(request).filter(**corrupt_documents.OURS).defer("document")

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> CorruptConversation | None:
        found: CorruptConversation | None = super().get_object(request, object_id, from_field)
        if found:
            found.document = corrupt_documents.document_of(found)
        return found

    @admin.display(description="session", ordering="key")
    def session(self, corrupt: CorruptConversation) -> str:
        return session_of(corrupt.key)

    @admin.display(description="quarantined at", ordering="pk")
    def quarantined(self, corrupt: CorruptConversation) -> str:
        """Return when the copy was made, which its id contains, in the format of the other dates."""
        return localize(localtime(corrupt.pk.generation_time))

    @admin.display(description="document")
    def text(self, corrupt: CorruptConversation) -> SafeString:
        """Return the beginning of the document as JSON, escaped."""
        return format_html('<pre class="document">{}</pre>', corrupt_documents.beginning(corrupt.document))

    class Media:
        css = {"all": ("ops/console.css",)}
