"""The audit log: one explicit call an operator action, written to the log always and to `default` when it is up."""

import getpass
import logging
import os
import socket
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest

from ops.models import AuditEntry
from telemetry.logs import event

logger = logging.getLogger(__name__)

_acting: tuple[str, str] = ("", "")
"""Who it is for whom this process acts, and why; it is the same for all that it does."""


def record(
    action: str, outcome: str, *, who: str = "", reason: str = "", before: Any = None, after: Any = None
) -> bool:
    """Record the action; return whether the database has it. An unavailable audit database is logged, not
    raised: it must not block a failover."""
    who = (who or operator())[:255]
    fields = {"who": who, "action": action, "reason": reason or _acting[1], "outcome": outcome[:200]}
    changes = {"before": before or {}, "after": after or {}}
    event(logger, logging.WARNING, "audit", **fields, **changes)
    try:
        AuditEntry.objects.create(**fields, **changes)
    except DatabaseError as error:
        event(logger, logging.ERROR, "audit_not_stored", error=type(error).__name__)
        return False
    return True


def admin_user(request: HttpRequest) -> str:
    """Return who acts by a page of the admin, as entries name them."""
    return f"{request.user.get_username()} in the admin"


def act_for(who: str, reason: str) -> None:
    """Record whatever this process does from now on as done by them, and for that reason."""
    global _acting
    _acting = (who, reason)


def operator() -> str:
    """Return for whom this process acts, or else who is at the command line, also behind sudo."""
    if _acting[0]:
        return _acting[0]
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
