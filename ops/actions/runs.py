"""Beginning a run of an action, and what stands in the way of it."""

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from conversations.runtime import switching
from ops import audit, lease
from ops.actions import processes, rows
from ops.actions.kinds import Action
from ops.errors import Busy, OperatorError, Overtaken, Refused
from ops.models import Run

GOOD_FOR = timedelta(minutes=10)
"""How long a plan may be agreed to."""
KEPT = 100
"""How many runs are kept."""


def plan(action: Action, words: list[str], who: str) -> Run:
    """Begin to look what the action would do. Raise Refused where another look of this user is not done yet."""
    return _begin(Run(action=action.name, words=[*words, *action.look], applies=False, who=who, since=newest_switch()))


def agree(action: Action, planned: Run, who: str, reason: str) -> Run:
    """Begin what was planned. Raise Refused, Busy or Overtaken, audited, with nothing begun."""
    try:
        if problem := obstacle(action, planned):
            raise problem
        run = Run(action=action.name, words=action.agreed(planned), applies=True, plan=planned, who=who, reason=reason)
        run.since = planned.since
        return _begin(run)
    except OperatorError as error:
        audit.record(action.name, f"refused: {error}", who=who, reason=reason)
        raise


def obstacle(action: Action, planned: Run) -> OperatorError | None:
    """Return what stands in the way of what was planned, None for nothing."""
    if planned.state not in (Run.State.DONE, Run.State.TROUBLE):
        return Refused("the plan did not come to its end")
    if Run.objects.filter(plan=planned).exists():
        return Refused("this plan was agreed to before. Make another one")
    if not action.is_needed(planned.report):
        return Refused("there is nothing to do")
    if planned.ended_at and timezone.now() - planned.ended_at > GOOD_FOR:
        return Refused("the plan is more than ten minutes old. Make another one")
    if problem := action.outdated(planned):
        return Refused(problem)
    if newest_switch() > planned.since:
        return Overtaken()
    if running := rows.current():
        return Refused(_running(running))
    if holder := lease.holder():
        return Busy(holder)
    return None


def newest_switch() -> float:
    """Return when the newest switch was made, 0.0 for none, or where no store can be asked."""
    newest = switching.newest_of(switching.read())
    return newest.at if newest else 0.0


def _begin(run: Run) -> Run:
    rows.sweep()
    try:
        with transaction.atomic():
            run.save(force_insert=True)
    except IntegrityError:
        raise Refused(_running(_in_the_way(run))) from None
    old = Run.objects.exclude(state=Run.State.RUNNING).values_list("pk", flat=True)[KEPT:]
    Run.objects.filter(pk__in=list(old)).delete()
    processes.start(run.pk)
    return run


def _in_the_way(run: Run) -> Run | None:
    going = Run.objects.filter(applies=run.applies, state=Run.State.RUNNING)
    return going.first() if run.applies else going.filter(who=run.who).first()


def _running(run: Run | None) -> str:
    if run is None:
        return "another one was begun at the same moment. Look again"
    what = run.action if run.applies else f"a plan of {run.action}"
    return f"{what} is running, begun by {run.who} at {run.started_at:%H:%M:%S} UTC"
