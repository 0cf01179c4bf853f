"""Errors outside views: under the admin's address pages in its look, elsewhere as the API has them."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from conversations.api.errors import error
from ops.error_page import error_page

Handler = Callable[..., HttpResponse]


def _handler(status: int, code: str, detail: str, *, title: str, in_admin: str = "") -> Handler:
    """Return a handler for Django, which names the exception where there is one."""

    def handle(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
        if request.path.startswith(reverse("admin:index")):
            return error_page(status, title, in_admin or detail)
        return error(status, code, detail)

    return handle


bad_request = _handler(
    400, "bad_request", "The request is malformed, or its Host is not one of ALLOWED_HOSTS.", title="Bad request"
)
forbidden = _handler(403, "forbidden", "You may not do this.", title="Not permitted")
no_such_page = _handler(
    404,
    "not_found",
    "There is nothing at this address; /api/docs/ lists what there is.",
    title="Not found",
    in_admin="There is nothing at this address.",
)
server_error = _handler(500, "error", "This is our fault; it has been logged.", title="Server error")
_without_token = _handler(
    403,
    "csrf_failed",
    "The request has no CSRF token of this site.",
    title="The form is out of date",
    in_admin="It was opened too long ago, in another session, or with cookies forbidden. Nothing has changed: open the "
    "page again, and repeat what you did.",
)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the answer to a form without its token. Django has logged the reason."""
    return _without_token(request)
