"""Conversations in the admin: listed, found and read from both stores as clients read them, changed by nobody."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from conversations import history
from conversations.errors import ConversationError, StoreUnavailable
from conversations.history import listing
from conversations.models import Conversation, CorruptConversation
from conversations.stores import store
from conversations.stores.redis.client import make_key, session_of
from conversations.turns import now

_PAGE = 50


class _ReadOnly(admin.ModelAdmin):
    """Turns are added by asking; what happened is not edited."""

    show_full_result_count = False  # counting every document is what MongoDB does slowest

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
        wanted, cursor = request.GET.get("q", "").strip(), request.GET.get("cursor", "")
        page = listing.ListPage((), None, complete=True)
        try:
            page = listing.page(None, cursor, _PAGE, contains=wanted)
        except (ConversationError, ValueError) as error:
            messages.error(request, str(error))
        if not page.complete:
            messages.warning(request, "A store cannot be reached: conversations may be missing here.")
        context = {
            **self.admin_site.each_context(request),
            "title": "Conversations",
            "opts": self.opts,
            "rows": [(make_key(listed.session_id), listed) for listed in page.results],
            "next": page.next,
            "wanted": wanted,
            "continued": bool(cursor),
        }
        return TemplateResponse(request, "admin/conversations/conversation/list.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Conversation | None:
        """Return the conversation as a client would be read it now, merged where it has to be."""
        session = session_of(object_id)
        try:
            reading = history.read(session)
            seconds = store(reading.store).ttl(session) if reading.found else None
        except (ConversationError, StoreUnavailable) as error:
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
        """Return the messages as they were said, escaped."""
        return format_html(
            '<div class="transcript">{}</div>',
            format_html_join(
                "",
                '<div class="message {}"><div class="by">{} <time datetime="{}">{}</time></div>'
                '<div class="said">{}</div></div>',
                (_shown(message) for message in conversation.messages),
            ),
        )

    class Media:
        css = {"all": ("conversations/transcript.css",)}


@admin.register(CorruptConversation)
class CorruptConversationAdmin(_ReadOnly):
    """What MongoDB held that was no history, and was set aside."""

    list_display = ("key", "expires_at")
    search_fields = ("key",)


def _shown(message: dict[str, str]) -> tuple[str, str, str, str, str]:
    who = {"user": "Question", "assistant": "Answer"}[message["role"]]
    when = f"{datetime.fromisoformat(message['at']):%Y-%m-%d %H:%M:%S}"
    return message["role"], who, message["at"], when, message["content"]
