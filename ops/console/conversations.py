"""Conversations in the admin: listed and read from both stores, exported, and deleted for good."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import pluralize
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from conversations import history
from conversations.clock import now
from conversations.errors import ConversationError, InvalidSession, InvalidUser, NoStore, Unknown
from conversations.history import listing
from conversations.ids import moment
from conversations.models import Conversation
from conversations.stores import BACKENDS, limits, store
from conversations.stores.base import NO_TIME
from conversations.stores.sessions import id_of, make_key, session_of, tenant_of
from conversations.transcript import NAMES, markdown
from conversations.turns import USER, Message
from ops import audit, transcript
from ops.console.users import NAME, TYPED, OfUsers, address, list_of
from ops.console.words import rendered
from ops.transcript import Shown, State
from ops.users import User
from telemetry.logs import hashed

_PAGE = 50
_PREVIEW = 120  # characters of the newest question
_FILTERS = ("q", "user", "since", "until")


class DeleteForm(forms.Form):
    """What somebody types who deletes a conversation."""

    session = forms.CharField(max_length=262, label="Type the session", widget=forms.TextInput(attrs=TYPED))
    reason = forms.CharField(max_length=200, widget=forms.TextInput(attrs=TYPED))

    def __init__(self, session: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._session = session

    def clean_session(self) -> str:
        if self.cleaned_data["session"] != self._session:
            raise forms.ValidationError("This is not the session of the conversation. Nothing was deleted.")
        return self._session


class DatesForm(forms.Form):
    """The dates between which the conversations of the list have their newest messages, both included."""

    since = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))

    def wanted(self, contains: str) -> listing.Wanted:
        """Return what is listed; a date that is none is left out, and the form names it."""
        self.is_valid()
        dates = self.cleaned_data if self.is_bound else {}
        since, until = dates.get("since"), dates.get("until")
        return listing.Wanted(
            None,
            since=moment(since.isoformat()) if since else NO_TIME,
            until=moment(until.isoformat(), ends=True) if until else "",
            contains=contains,
        )


@dataclass(frozen=True, slots=True)
class Badge:
    """What one store has of a conversation."""

    label: str
    text: str
    level: str
    """ok, warn or bad: how it looks."""


@admin.register(Conversation)
class ConversationAdmin(OfUsers):
    """The conversations of both stores; the model's own pages would show only those that MongoDB holds."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("conversations.delete_conversation"))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.export_view)
        return [path("<path:object_id>/export/", view, name=NAME.format("export")), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """List conversations, or go to the one that was found. Whose words are shown is audited."""
        self._require(self.has_view_permission(request))
        query, cursor = request.GET.get("q", "").strip(), request.GET.get("cursor", "")
        user = request.GET.get("user", "").strip()
        dates = DatesForm(request.GET or None)
        page, failed, total = listing.ListPage((), None, complete=True), False, ""
        try:
            wanted = dates.wanted(query)._replace(user=_checked(user))
            page = listing.page(wanted, cursor, _PAGE, _PREVIEW)
            total = _total(wanted, page, bool(cursor))
        except ConversationError as error:
            failed = True
            messages.error(request, str(error))
        if query and not cursor and len(page.results) == 1 and page.complete and not page.next:
            return HttpResponseRedirect(_address("change", page.results[0].session_id))
        if not page.complete:
            messages.warning(request, _incomplete(page))
        if shown := [listed.session_id for listed in page.results if listed.question]:
            what = {"sessions": [hashed(session) for session in shown]}
            audit.record("conversations previewed", "done", who=audit.admin_user(request), before=what)
        context = {
            "title": "Conversations",
            "rows": [_Row.of(listed) for listed in page.results],
            "total": total,
            "next": page.next,
            "query": query,
            "dates": dates,
            "wanted": user,  # `user` is who is logged in
            "users": [] if failed or not user else _users(user, page),
            "may_delete": self.has_delete_permission(request),
            "kept": urlencode({name: request.GET[name] for name in _FILTERS if request.GET.get(name)}),
            "continued": bool(cursor),
            "known": page.complete and not failed,
        }
        return self._page(request, "list", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the conversation, merged from both stores. That it was read is audited."""
        self._require(self.has_view_permission(request))
        shown = self._look(request, object_id)
        if isinstance(shown, HttpResponse):
            return shown
        _audit(request, "conversation read", shown)
        context = {
            "title": id_of(shown.session),
            "session": shown.session,
            "facts": _facts(shown),
            "badges": [_badge(alias, copy) for alias, copy in shown.stores.items()],
            "said": [_Said.of(message) for message in shown.history],
            "whole": len(shown.history) < 2 * limits().max_turns,
            "turns": limits().max_turns,
            "unseen": [BACKENDS[alias].label for alias in shown.unseen],
            "export": _address("export", shown.session),
            "delete": _address("delete", shown.session) if self.has_delete_permission(request) else "",
        }
        return self._page(request, "transcript", context)

    def export_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the conversation as a file, as JSON or as Markdown."""
        self._require(self.has_view_permission(request))
        shown = self._look(request, object_id)
        if isinstance(shown, HttpResponse):
            return shown
        _audit(request, "conversation export", shown)
        conversation = {"session_id": shown.session, "messages": [message.as_dict() for message in shown.history]}
        if request.GET.get("as") == "markdown":
            content, kind, ending = markdown(conversation).encode(), "text/markdown; charset=utf-8", "md"
        else:
            content, kind, ending = orjson.dumps(conversation, option=orjson.OPT_INDENT_2), "application/json", "json"
        name = shown.session.replace(":", "_")
        headers = {"Content-Disposition": f'attachment; filename="{name}.{ending}"', "Cache-Control": "no-store"}
        return HttpResponse(content, content_type=kind, headers=headers)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask for the session and a reason; delete once they are given, and show what was done."""
        self._require(self.has_delete_permission(request))
        shown = self._look(request, object_id)
        if isinstance(shown, HttpResponse):
            return shown
        form = DeleteForm(shown.session, request.POST or None)
        context = {"title": "Delete for good?", "session": shown.session, "facts": _facts(shown), "form": form}
        context |= {"badges": [_badge(alias, copy) for alias, copy in shown.stores.items()]}
        if request.method != "POST" or not form.is_valid():
            return self._page(request, "delete", context)
        reason = form.cleaned_data["reason"]
        try:
            history.delete(shown.session)
        except ConversationError as error:
            _audit(request, "conversation delete", shown, f"failed: {error}", reason)
            messages.error(request, str(error))
            return self._page(request, "delete", context, HTTPStatus.SERVICE_UNAVAILABLE)
        _audit(request, "conversation delete", shown, "done", reason)
        return self._page(request, "receipt", _receipt(shown) | {"reason": reason})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Go to the conversation: Django's history of a model knows of no change of it."""
        return HttpResponseRedirect(_address("change", session_of(unquote(object_id))))

    def _look(self, request: HttpRequest, object_id: str) -> Shown | HttpResponse:
        """Return what the stores have, or the page that says why there is nothing to show."""
        session = session_of(unquote(object_id))
        try:
            shown = transcript.look(session)
        except ConversationError as error:
            wrong = isinstance(error, InvalidSession)
            return self._nothing(
                request, session, str(error), HTTPStatus.NOT_FOUND if wrong else HTTPStatus.SERVICE_UNAVAILABLE
            )
        if shown.known:
            return shown
        if shown.unseen:
            out = " and ".join(BACKENDS[alias].label for alias in shown.unseen)
            return self._nothing(
                request,
                session,
                f"{out} is out, and may have it. Try again when it is back.",
                HTTPStatus.SERVICE_UNAVAILABLE,
            )
        return self._nothing(request, session, Unknown().detail, HTTPStatus.NOT_FOUND)

    def _nothing(self, request: HttpRequest, session: str, why: str, status: int) -> HttpResponse:
        return self._page(
            request, "nothing", {"title": "No conversation to show", "session": session, "why": why}, status
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation in the list."""

    address: str
    session_id: str
    tenant: str
    question: str
    messages: int | None
    bytes: int | None
    at: datetime | None
    ago: str
    stores: list[str]
    user: str | None
    theirs: str
    """The address of the list of the user's."""

    @classmethod
    def of(cls, listed: listing.Listed) -> "_Row":
        session = listed.session_id
        at = datetime.fromisoformat(listed.updated_at) if listed.updated_at else None
        user = listed.user
        return cls(
            _address("change", session),
            id_of(session),
            tenant_of(session),
            _preview(listed.question or ""),
            listed.messages,
            listed.bytes,
            at,
            _ago(at) if at else "",
            [BACKENDS[alias].label for alias in listed.stores],
            user,
            list_of(User(user)) if user else "",
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """A message of a transcript."""

    role: str
    by: str
    at: datetime
    id: str
    html: SafeString
    text: str

    @classmethod
    def of(cls, message: Message) -> "_Said":
        html = rendered(message.content)
        return cls(message.role, NAMES[message.role], message.time, message.id, html, message.content)


def _total(wanted: listing.Wanted, page: listing.ListPage, continued: bool) -> str:
    """Return how many conversations match; "" where that is not known."""
    if page.complete and not (continued or page.next):
        return _conversations(len(page.results)) if page.results else ""
    number = listing.total(wanted)
    return "" if number is None else f"about {_conversations(number)}"


def _conversations(number: int) -> str:
    return f"{number:,} conversation{pluralize(number)}"


def _incomplete(page: listing.ListPage) -> str:
    """Return why conversations may be missing on the page."""
    if page.unseen:
        return (
            f"{' and '.join(BACKENDS[alias].label for alias in page.unseen)} is out: conversations may be missing here."
        )
    return "The list is not complete: a store was out for a page before, or its list is being made."


def _preview(question: str) -> str:
    """Return it in one line."""
    return " ".join(question.split()) + "…" * (len(question) == _PREVIEW)


def _ago(at: datetime) -> str:
    """Return how long ago it was; of what is older than a month, or in the future by the clock here, the date."""
    age = now() - at
    if not timedelta() <= age < timedelta(days=30):
        return f"{at:%Y-%m-%d}"
    return f"{timesince(at, now(), depth=1)} ago" if age >= timedelta(minutes=1) else "just now"


def _checked(user: str) -> str:
    """Return the user; raise InvalidUser where nobody can have that name."""
    if user and not USER.fullmatch(user):
        raise InvalidUser
    return user


def _users(user: str, page: listing.ListPage) -> list[dict[str, Any]]:
    """Return the users of that name whose conversations are on the page, one for each tenant, and where all of theirs
    are exported and deleted; where there are none the one of no tenant: a list may be missing theirs."""
    found = [User(user, tenant) for tenant in sorted({tenant_of(listed.session_id) for listed in page.results} or {""})]
    return [{"tenant": one.tenant, "export": address("export", one), "delete": address("delete", one)} for one in found]


def _address(page: str, session: str) -> str:
    return reverse(f"admin:{NAME.format(page)}", args=[quote(make_key(session))])


def _facts(shown: Shown) -> dict[str, Any]:
    """Return what is known of a conversation beside its messages."""
    said = shown.history
    return {
        "session": id_of(shown.session),
        "tenant": tenant_of(shown.session),
        "user": said.user,
        "theirs": list_of(User(said.user)) if said.user else "",
        "messages": len(said),
        "bytes": len(said.lines()) if said else 0,
        "first": said[0].time if said else None,
        "last": said[-1].time if said else None,
        "expires": _expires(shown),
    }


def _expires(shown: Shown) -> datetime | None:
    """Return when the last copy of it expires."""
    seconds = [copy.ttl_seconds for copy in shown.stores.values() if copy.ttl_seconds is not None]
    return now() + timedelta(seconds=max(seconds)) if seconds else None


def _badge(alias: str, copy: transcript.Copy) -> Badge:
    label = BACKENDS[alias].label
    if copy.state is State.OUT:
        return Badge(label, "out", "bad")
    if copy.state is State.CORRUPT:
        return Badge(label, "corrupt", "bad")
    if copy.flagged:
        return Badge(label, f"{copy.messages} messages, more than the other store", "warn")
    if not copy.messages:
        return Badge(label, "deleted" if copy.tombstone else "does not have it", "unknown")
    return Badge(label, f"{copy.messages} messages", "ok")


def _receipt(shown: Shown) -> dict[str, Any]:
    """Return what became of a deleted conversation, as the stores say now; a store that does not answer any more is
    one that has still to delete it, as far as is known."""
    try:
        found = transcript.look(shown.session).stores
    except NoStore:
        found = {}
    tombstones = {alias: copy.tombstone for alias, copy in found.items() if copy.tombstone}
    later = [alias for alias in shown.stores if alias not in tombstones]
    return {
        "title": "Deleted",
        "session": shown.session,
        "number": len(shown.history),
        "done": [BACKENDS[alias].label for alias in tombstones],
        "later": [BACKENDS[alias].label for alias in later],
        "at": now(),
        "until": now() + timedelta(seconds=max(store(alias).tombstone_ttl for alias in shown.stores)),
        "upto": max(tombstones.values(), default=""),
    }


def _audit(request: HttpRequest, action: str, shown: Shown, outcome: str = "done", reason: str = "") -> None:
    """Record who did it. The session is named by its hash, as in the log, beside its tenant."""
    what = {"session": hashed(shown.session), "tenant": tenant_of(shown.session), "messages": len(shown.history)}
    audit.record(action, outcome, who=audit.admin_user(request), reason=reason, before=what)
