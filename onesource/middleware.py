"""The API, probes and metrics pass only the middlewares that they need."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.urls import ResolverMatch, get_urlconf, resolve

from conversations.probes.urls import PROBES

_API = "/api/chat/"


class PagesOnly:
    """The middlewares after this one are for pages: the API has no static files, sessions, forms or messages.

    Its requests are checked for their Host, and its answers get the same headers as pages.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._page = get_response
        # As Django does with each view and middleware: the headers are set on errors too.
        view: Any = convert_exception_to_response(_call_view)
        self._api: Any = CommonMiddleware(convert_exception_to_response(XFrameOptionsMiddleware(view)))

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        short = path.startswith(_API) or path.strip("/") in PROBES
        return self._api(request) if short else self._page(request)


def _call_view(request: HttpRequest) -> HttpResponseBase:
    """Return the view's response; raise Http404 where the path has none."""
    match = request.resolver_match = _match(request.path_info, get_urlconf())
    response: Any = match.func(request, *match.args, **match.kwargs)
    return response.render() if hasattr(response, "render") else response  # type: ignore[no-any-return]


@lru_cache(maxsize=32)
def _match(path: str, urlconf: str | None) -> ResolverMatch:
    """Return the view of the path, from memory for the paths that were asked for last."""
    return resolve(path, urlconf)
