"""Logins to the admin: how many may fail, and what is recorded of those that do."""

import logging
import math
from ipaddress import ip_address
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.throttling import BaseThrottle

from ops import audit
from ops.error_page import error_page
from telemetry import metrics
from telemetry.logs import event, hashed

# For each of AXES_LOCKOUT_PARAMETERS, of how many failures one counts: 5 of a user from an address, 20 of an address,
# 100 of a user from anywhere. A stranger who knows a user name cannot lock that user out with less.
_WEIGHTS = (1, 4, 20)

logger = logging.getLogger(__name__)


class Handler(AxesDatabaseHandler):
    """Counts failures on `default`, with a limit for each of AXES_LOCKOUT_PARAMETERS."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Return how many failures of this cool-off time stand against the login."""
        found = [
            attempts.aggregate(failures=Sum("failures_since_start"))["failures"] or 0
            for attempts in self.get_user_attempts(request, credentials)
        ]
        return max(failures // weight for failures, weight in zip(found, _WEIGHTS, strict=True))


def address(request: HttpRequest) -> str | None:
    """Return the client's address, by the proxy's header only as far as NUM_PROXIES trusts one."""
    given = BaseThrottle().get_ident(request)  # type: ignore[arg-type]
    for each in (given, request.META.get("REMOTE_ADDR")):
        try:
            return str(ip_address(each or ""))
        except ValueError:
            continue
    return None


def record_failure(
    sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **options: Any
) -> None:
    """Log, count and audit a failed login. One that is refused while locked out is not audited: nothing limits how
    many there are."""
    if request is None:
        return
    name, outcome = str(credentials.get("username", "")), _outcome(request)
    metrics.login_failures.labels(outcome=outcome).inc()
    event(logger, logging.WARNING, "login_failed", user=hashed(name), address=address(request), outcome=outcome)
    if outcome != "refused":
        audit.record("login", outcome.replace("_", " "), who=_who(name), after={"address": address(request)})


def _outcome(request: Any) -> str:
    """Return one of LOGIN_OUTCOMES. django-axes, which gets the signal first, counts what it does not refuse."""
    if request.axes_failures_since_start is None:
        return "refused"
    return "locked_out" if request.axes_locked_out else "failed"


def _who(name: str) -> str:
    """Return the name of an existing user; another may be a password in the wrong field."""
    known = get_user_model().objects.filter(username=name).exists()
    return name if known else f"no user, {hashed(name)}"


def locked_out(
    request: HttpRequest, response: HttpResponse | None = None, credentials: dict[str, Any] | None = None
) -> HttpResponse:
    """Return the page for a login while it is locked out, with Retry-After."""
    seconds = _seconds_left(request, credentials)
    minutes = math.ceil(seconds / 60)
    detail = f"Too many logins failed. Try again in {minutes} minute{'s' if minutes > 1 else ''}."
    page = error_page(429, "Locked out", detail)
    page["Retry-After"] = str(seconds)
    return page


def _seconds_left(request: HttpRequest, credentials: dict[str, Any] | None) -> int:
    """Return the seconds until every failure that counts is forgotten."""
    found = AxesProxyHandler.get_implementation().get_user_attempts(request, credentials)
    latest = [attempts.aggregate(at=Max("attempt_time"))["at"] for attempts in found]
    left = max((at for at in latest if at), default=timezone.now()) + settings.AXES_COOLOFF_TIME - timezone.now()
    return max(1, math.ceil(left.total_seconds()))
