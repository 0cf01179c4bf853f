"""The pages of the actions: what there is, the plan of one, the yes to it, and how far it is."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from conversations.errors import ConversationError, StoreUnavailable
from conversations.runtime import switching
from conversations.stores import ALIASES, store
from ops import audit
from ops.actions import dual_write, kinds, rows, runs
from ops.actions.forms import AgreedForm, DualWriteForm
from ops.actions.kinds import ACTIONS, Action
from ops.error_page import error_page
from ops.errors import OperatorError
from ops.management.base import FINE, TROUBLE
from ops.models import Run
from ops.status.render import in_words

DUAL_WRITE = "ops.switch_dual_write"
_LISTED = 20

View = Callable[..., HttpResponse]


def needs_default(view: View) -> View:
    """Answer with a page that says so where `default` is out, which has the users and the runs."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        try:
            response = view(request, *args, **options)
            return response.render() if isinstance(response, TemplateResponse) else response
        except DatabaseError:
            return error_page(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The database cannot be used",
                "DATABASE_URL's database, which has the users and the audit log, does not answer. Nothing was begun. "
                "The commands work without it: manage.py failover, reconcile, trim and backup.",
            )

    return wrapped


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Every action that the user may run, what is running, and the newest runs."""
    return _index(request)


@require_POST
def plan(request: HttpRequest, name: str) -> HttpResponse:
    """Begin to look what the action would do, and go to the page that shows it."""
    action = _permitted(request, name)
    form = _form(action, request.POST)
    if not form.is_valid():
        return _index(request, **{name: form})
    try:
        run = runs.plan(action, action.words(form.cleaned_data), audit.admin_user(request))
    except OperatorError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:actions"))
    return _to(run)


@require_http_methods(["GET", "HEAD", "POST"])
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """A run, or a plan with the form of the yes; a POST agrees to it."""
    rows.sweep()
    found = get_object_or_404(Run, pk=pk)
    action = _permitted(request, found.action)
    if request.method != "POST":
        return _run(request, action, found)
    form = _agreed_form(action, found, request.POST)
    if found.applies or not form.is_valid():
        return _run(request, action, found, form)
    try:
        return _to(runs.agree(action, found, audit.admin_user(request), form.cleaned_data["reason"]))
    except OperatorError as error:
        messages.error(request, str(error))
        return _to(found)


@require_safe
def part(request: HttpRequest, pk: int) -> HttpResponse:
    """What of the page changes, for the script that asks for it again and again."""
    rows.sweep()
    found = get_object_or_404(Run, pk=pk)
    _permitted(request, found.action)
    return TemplateResponse(request, "admin/ops/actions/part.html", {"run": found})


@require_http_methods(["GET", "HEAD", "POST"])
def switch_dual_write(request: HttpRequest, wanted: str) -> HttpResponse:
    """What the switch would do, with the form of the yes; a POST agrees to it."""
    if not request.user.has_perm(DUAL_WRITE):
        raise PermissionDenied
    if wanted not in ("on", "off"):
        raise Http404
    posted = request.POST if request.method == "POST" else None
    form = DualWriteForm(wanted, posted, initial={"since": runs.newest_switch()})
    if not form.is_valid():
        return _dual_write(request, wanted, form)
    chosen = form.cleaned_data
    try:
        done = dual_write.switch(wanted == "on", chosen["since"], audit.admin_user(request), chosen["reason"])
        messages.success(request, done)
    except (ConversationError, OperatorError) as error:
        messages.error(request, str(error))
    return HttpResponseRedirect(reverse("admin:actions"))


def may_act(user: Any) -> bool:
    """Return whether there is anything for the user on these pages."""
    return bool(kinds.allowed(user)) or user.has_perm(DUAL_WRITE)


def _index(request: HttpRequest, **posted: Any) -> HttpResponse:
    allowed = kinds.allowed(request.user)
    if not may_act(request.user):
        raise PermissionDenied
    running = rows.current()
    routing = switching.current()
    names = [action.name for action in allowed]
    context = {
        "title": "Actions",
        "routing": in_words(routing),
        "dual_write": routing.dual_write,
        "may_switch": request.user.has_perm(DUAL_WRITE),
        "actions": [(action, posted.get(action.name) or _form(action)) for action in allowed],
        "running": running,
        "may_see_it": running and running.action in names,
        "runs": Run.objects.filter(action__in=names)[:_LISTED],
    }
    return _page(request, "index", context)


def _run(request: HttpRequest, action: Action, found: Run, form: AgreedForm | None = None) -> HttpResponse:
    planned = not found.applies
    ended = found.state != Run.State.RUNNING
    problem = runs.obstacle(action, found) if planned and ended else None
    took = (found.ended_at - found.started_at).total_seconds() if found.ended_at else 0.0
    context = {
        "title": f"{action.name.capitalize()}: the plan" if planned else action.name.capitalize(),
        "run": found,
        "action": action,
        "idle": planned and ended and found.exit_code in (FINE, TROUBLE) and not action.is_needed(found.report),
        "problem": problem,
        "done_by": Run.objects.filter(plan=found).first() if planned else None,
        "form": form or _agreed_form(action, found) if planned and ended and not problem else None,
        "takes": _in_words(action.seconds(found.report, took)),
        "took": _in_words(took),
        "forced": kinds.without_a_copy(found.report),
    }
    return _page(request, "run", context)


def _dual_write(request: HttpRequest, wanted: str, form: DualWriteForm) -> HttpResponse:
    routing = switching.current()
    context = {
        "title": f"Dual write {wanted}?",
        "wanted": wanted,
        "before": in_words(routing),
        "primary": routing.primary,
        "same": routing.dual_write == (wanted == "on"),
        "warnings": dual_write.warnings(wanted == "on", _out()),
        "form": form,
    }
    return _page(request, "dual_write", context)


def _out() -> dict[str, str]:
    """Return why each store that is out is."""
    found = {}
    for alias in ALIASES:
        try:
            store(alias).ping()
        except StoreUnavailable as error:
            found[alias] = error.reason
    return found


def _permitted(request: HttpRequest, name: str) -> Action:
    """Return the action; raise PermissionDenied where there is none of that name for this user."""
    action = ACTIONS.get(name)
    if action is None or not request.user.has_perm(action.permission):
        raise PermissionDenied
    return action


def _form(action: Action, posted: Any = None) -> Any:
    return action.form(posted, auto_id=f"{action.name}_%s", initial=kinds.suggested() if posted is None else None)


def _agreed_form(action: Action, found: Run, posted: Any = None) -> AgreedForm:
    return AgreedForm(action.typed(found), posted)


def _to(found: Run) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:run", args=[found.pk]))


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    whole = {**admin.site.each_context(request), "now": timezone.now(), **context}
    headers = {"Cache-Control": "no-store"}
    return TemplateResponse(request, f"admin/ops/actions/{name}.html", whole, headers=headers)
