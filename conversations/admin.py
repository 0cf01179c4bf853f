"""Conversations in the admin: read-only, listed and read from both stores as clients read them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.timezone import localtime

from conversations import history
from conversations.clock import now
from conversations.errors import ConversationError, StoreUnavailable
from conversations.history import listing
from conversations.models import Conversation, CorruptConversation
from conversations.stores import store
from conversations.stores.mongo import corrupt as corrupt_documents
from conversations.stores.sessions import make_key, session_of
from conversations.transcript import NAMES

_PAGE = 50


class _ReadOnly(admin.ModelAdmin):
    """Conversations change only through the API."""

    show_full_result_count = False  # counting every document is slow in MongoDB

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Conversation)
class ConversationAdmin(_ReadOnly):
    """The conversations of both stores; the model's own list would show only those that MongoDB holds."""

    fields = ("session", "updated_at", "expires_at", "transcript")
    readonly_fields = fields

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        query, cursor = request.GET.get("q", "").strip(), request.GET.get("cursor", "")
        page = listing.ListPage((), None, complete=True)
        try:
            page = listing.page(None, cursor, _PAGE, contains=query)
        except ConversationError as error:
            messages.error(request, str(error))
        if not page.complete:
            messages.warning(request, "A store cannot be reached: conversations may be missing here.")
        context = {
            **self.admin_site.each_context(request),
            "title": "Conversations",
            "opts": self.opts,
            "rows": [(make_key(listed.session_id), listed) for listed in page.results],
            "next": page.next,
            "query": query,
            "continued": bool(cursor),
        }
        return TemplateResponse(request, "admin/conversations/conversation/list.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Conversation | None:
        """Return the conversation as a client would get it now, merged where necessary."""
        session = session_of(object_id)
        try:
            reading = history.read(session)
            seconds = store(reading.store).ttl(session) if reading.found else None
        except ConversationError as error:
            messages.error(request, str(error))
            return None
        if not reading.found:
            return None
        return Conversation(
            key=object_id,
            messages=[message.as_dict() for message in reading.history],
            updated_at=reading.history[-1].time,
            expires_at=now() + timedelta(seconds=seconds or 0),
        )

    @admin.display(description="session")
    def session(self, conversation: Conversation) -> str:
        return session_of(conversation.key)

    @admin.display(description="transcript")
    def transcript(self, conversation: Conversation) -> SafeString:
        """Return the messages, escaped."""
        return format_html(
            '<div class="transcript">{}</div>',
            format_html_join(
                "",
                '<div class="message {}"><div class="by">{} <time datetime="{}">{}</time></div>'
                '<div class="said">{}</div></div>',
                (_row(message) for message in conversation.messages),
            ),
        )

    class Media:
        css = {"all": ("conversations/transcript.css",)}


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
class CorruptConversationAdmin(_ReadOnly):
    """Documents that were no history and were quarantined; shown as text."""

    list_display = ("session", "quarantined", "expires_at")
    search_fields = ("key",)
    fields = ("session", "quarantined", "expires_at", "text")
    readonly_fields = fields

    changelist_view = _needs_mongo(_ReadOnly.changelist_view)
    change_view = _needs_mongo(_ReadOnly.change_view)
    history_view = _needs_mongo(_ReadOnly.history_view)
    delete_view = _needs_mongo(_ReadOnly.delete_view)

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
        css = {"all": ("conversations/transcript.css",)}


def _row(message: dict[str, str]) -> tuple[str, str, str, str, str]:
    when = f"{datetime.fromisoformat(message['at']):%Y-%m-%d %H:%M:%S}"
    return message["role"], NAMES[message["role"]], message["at"], when, message["content"]
