"""The process of one run: the command itself, as it is called in a terminal, whose lines and progress the row has."""

import logging
import signal
from typing import NoReturn

from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError

from ops import audit
from ops.actions.following import Following
from ops.management.base import COULD_NOT_RUN, FINE, TROUBLE, OperatorCommand, begin_work, end_at_once
from ops.models import Run
from telemetry.logs import event

State = Run.State

logger = logging.getLogger(__name__)


def run(pk: int) -> int:
    """Carry the run out, and return its exit code, that of the command."""
    row = Run.objects.get(pk=pk)
    audit.act_for(row.who, row.reason)
    begin_work()
    following = Following(row)
    try:
        with following:
            following.end(*_carry_out(row, following))
    finally:
        end_at_once()
    return FINE if following.code is None else following.code


def _carry_out(row: Run, following: Following) -> tuple[Run.State, int, str]:
    """Return how it ended. A signal ends it as Ctrl-C ends a command: what is begun is put in order first."""
    signals: list[int] = []

    def interrupt(number: int, _: object) -> NoReturn:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # a second one must not cut that short
        signals.append(number)
        raise KeyboardInterrupt

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, interrupt)
    # The worker had them blocked, and a child inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        _call(row, following)
    except CommandError as error:
        state = State.TROUBLE if error.returncode == TROUBLE else State.FAILED
        return (State.INTERRUPTED if signals else state), error.returncode, str(error)
    except KeyboardInterrupt:
        return State.INTERRUPTED, TROUBLE, "interrupted"
    except Exception as error:  # the page must say so, whatever it is
        logger.exception("action_failed")
        outcome = f"failed: {type(error).__name__}, which is our fault; it has been logged"
        if row.applies:
            audit.record(row.action, outcome)
        return State.FAILED, COULD_NOT_RUN, outcome
    return State.DONE, FINE, "done"


def _call(row: Run, following: Following) -> None:
    """Call the command; raise what it raises."""
    command: OperatorCommand = load_command_class("ops", row.action)  # type: ignore[assignment]
    command.shown = following.progress
    options = {"reason": row.reason} if command.changes else {}
    event(logger, logging.INFO, "action", action=row.action, applies=row.applies, by=row.who)
    try:
        call_command(command, *row.words, stdout=following, **options)
    finally:
        if command.result:
            following.report = command.result.logged()
