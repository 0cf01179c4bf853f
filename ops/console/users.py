"""All conversations of one user in the admin: exported as one archive, and deleted with one receipt."""

from http import HTTPStatus
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from conversations.clock import now
from conversations.errors import ConversationError, StoreUnavailable
from conversations.stores import BACKENDS
from conversations.turns import SESSION, USER
from ops import audit, lease, users
from ops.console.base import ReadOnly
from ops.errors import Busy, OutOfReach
from ops.users import Theirs, User

TYPED = {"class": "vTextField", "autocomplete": "off"}
NAME = "conversations_conversation_{}"


class DeleteUserForm(forms.Form):
    """What somebody types who deletes all of a user."""

    user = forms.CharField(max_length=128, label="Type the user", widget=forms.TextInput(attrs=TYPED))
    reason = forms.CharField(max_length=200, widget=forms.TextInput(attrs=TYPED))

    def __init__(self, user: User, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._user = user

    def clean_user(self) -> str:
        if self.cleaned_data["user"] != self._user.name:
            raise forms.ValidationError("This is not the user. Nothing was deleted.")
        return self._user.name


class OfUsers(ReadOnly):
    """The pages about all conversations of a user. Like those about one they need the permission to view, or to
    delete."""

    def get_urls(self) -> list[URLPattern]:
        pages = {"export": self.user_export_view, "delete": self.user_delete_view}
        return [
            *(
                path(f"user-{name}/", self.admin_site.admin_view(view), name=NAME.format(f"user_{name}"))
                for name, view in pages.items()
            ),
            *super().get_urls(),
        ]

    def user_export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Return all conversations of the user as one ZIP."""
        self._require(self.has_view_permission(request))
        theirs = self._find(request)
        if isinstance(theirs, HttpResponse):
            return theirs
        file: IO[bytes] = TemporaryFile()  # noqa: SIM115  (the response closes it)
        try:
            users.export(theirs, file, _shown_nowhere)
        except (OutOfReach, ConversationError, OSError) as error:
            file.close()
            why = f"The archive cannot be written: {error.strerror}" if isinstance(error, OSError) else str(error)
            _audit(request, "user export", theirs, f"failed: {why}")
            return self._no_user(request, theirs.user, why, HTTPStatus.SERVICE_UNAVAILABLE)
        _audit(request, "user export", theirs)
        file.seek(0)
        name, headers = f"onesource-user-{now():%Y%m%dT%H%M%SZ}.zip", {"Cache-Control": "no-store"}
        return FileResponse(file, as_attachment=True, filename=name, content_type="application/zip", headers=headers)

    def user_delete_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for the user and a reason; delete all of theirs once they are given, and show what was done."""
        self._require(self.has_delete_permission(request))
        if request.method != "POST":
            return self._user_delete(request)
        try:
            # A restore must not add any meanwhile.
            with lease.held(f"conversation delete by {audit.admin_user(request)}"):
                return self._user_delete(request)
        except Busy as error:
            return self._no_user(request, _user_in(request), str(error), HTTPStatus.CONFLICT)

    def _user_delete(self, request: HttpRequest) -> HttpResponse:
        theirs = self._find(request)
        if isinstance(theirs, HttpResponse):
            return theirs
        form = DeleteUserForm(theirs.user, request.POST or None)
        context = {"title": "Delete all of a user for good?", "theirs": theirs, "form": form}
        context |= {"list": list_of(theirs.user)}
        if request.method != "POST" or not form.is_valid():
            return self._page(request, "user_delete", context)
        reason = form.cleaned_data["reason"]
        try:
            receipt = users.delete(theirs, _shown_nowhere)
        except StoreUnavailable as error:
            _audit(request, "user delete", theirs, f"failed: {error}", reason)
            messages.error(request, str(error))
            return self._page(request, "user_delete", context, HTTPStatus.SERVICE_UNAVAILABLE)
        rest = users.trouble(receipt)
        _audit(request, "user delete", theirs, rest or "done", reason, receipt.logged())
        context = {
            "title": "Not all is deleted yet" if rest else "Deleted",
            "receipt": receipt,
            "tombstones": [(BACKENDS[alias].label, number) for alias, number in receipt.tombstones.items()],
            "rest": rest,
            "reason": reason,
            "audited_as": theirs.user.logged()["user"],
        }
        return self._page(request, "user_receipt", context)

    def _find(self, request: HttpRequest) -> Theirs | HttpResponse:
        """Return what the stores hold of the user that is asked for, or the page that says why there is nothing."""
        user = _user_in(request)
        if not (USER.fullmatch(user.name) and SESSION.fullmatch(f"{user.tenant or 'x'}:x")):
            return self._no_user(request, user, "There can be no such user.", HTTPStatus.NOT_FOUND)
        try:
            theirs = users.find(user, _shown_nowhere)
        except (OutOfReach, ConversationError) as error:
            return self._no_user(request, user, str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        if not theirs.sessions:
            where = f"in the tenant {user.tenant}" if user.tenant else "outside of tenants"
            return self._no_user(request, user, f"No conversation of this user {where}.", HTTPStatus.NOT_FOUND)
        return theirs

    def _no_user(self, request: HttpRequest, user: User, why: str, status: int) -> HttpResponse:
        context = {"title": "Nothing of a user to show", "session": str(user), "why": why}
        return self._page(request, "nothing", context, status)

    def _require(self, allowed: bool) -> None:
        if not allowed:
            raise PermissionDenied

    def _page(
        self, request: HttpRequest, name: str, context: dict[str, Any], status: int = HTTPStatus.OK
    ) -> HttpResponse:
        whole = {**self.admin_site.each_context(request), "opts": self.opts, **context}
        headers = {"Cache-Control": "no-store"}
        return TemplateResponse(
            request, f"admin/conversations/conversation/{name}.html", whole, status=status, headers=headers
        )


def _user_in(request: HttpRequest) -> User:
    return User(request.GET.get("user", ""), request.GET.get("tenant", ""))


def list_of(user: User) -> str:
    """Return the address of the list of a user's conversations."""
    return f"{reverse('admin:' + NAME.format('changelist'))}?{urlencode({'user': user.name})}"


def address(page: str, user: User) -> str:
    """Return the address of a page about all of a user."""
    query = urlencode({"user": user.name, "tenant": user.tenant})
    return f"{reverse('admin:' + NAME.format(f'user_{page}'))}?{query}"


def _shown_nowhere(done: int, total: int) -> None:
    """The page comes when all is done."""


def _audit(
    request: HttpRequest,
    action: str,
    theirs: Theirs,
    outcome: str = "done",
    reason: str = "",
    after: dict[str, Any] | None = None,
) -> None:
    """Record who did it. The user is named by a hash, beside the tenant."""
    audit.record(action, outcome, who=audit.admin_user(request), reason=reason, before=theirs.logged(), after=after)
