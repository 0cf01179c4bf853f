"""The page, and what its drawer does to embedded stores."""

from csp.constants import NONE
from csp.decorators import csp_replace
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST, require_safe

import embedded
from conversations.stores import ALIASES, BACKENDS
from page.embedded_stores import changeable, is_from_page


@require_safe
@csp_replace({"form-action": [NONE]})  # its forms are sent by its scripts
def chat(request: HttpRequest) -> HttpResponse:
    """The page to talk to the service. No store and no database is asked: it is there in an outage too."""
    context = {
        "stores": [(alias, BACKENDS[alias].label) for alias in ALIASES],
        "changeable": [(alias, BACKENDS[alias].label) for alias in changeable(request)],
        "needs_token": settings.CHAT_AUTH == "token",
        "max_turns": settings.CONV_MAX_TURNS,
        "days": settings.CONV_TTL_SECONDS // 86_400,
        "version": settings.VERSION,
    }
    response = render(request, "page/chat.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def change_store(request: HttpRequest, name: str, verb: str) -> HttpResponse:
    """Stop, freeze or start an embedded store; 202: `serve` does it, and /healthz shows it within seconds."""
    if verb not in embedded.VERBS or not settings.EMBEDDED:
        raise Http404
    if name not in changeable(request) or not is_from_page(request):
        raise PermissionDenied
    try:
        embedded.request(settings.VAR_DIR, name, verb)
    except embedded.EmbeddedError as error:
        return JsonResponse({"code": "not_serving", "detail": str(error)}, status=503)
    return HttpResponse(status=202)
