"""The rows of runs: which one is running, and which has no process any more."""

from datetime import timedelta

from django.db.models.functions import Now

from ops import audit
from ops.models import Run

SILENT = timedelta(seconds=20)
"""After so long without a sign of life the process of a run is taken to have ended."""


def current() -> Run | None:
    """Return the action that is running now."""
    sweep()
    return Run.objects.filter(applies=True, state=Run.State.RUNNING).first()


def sweep() -> None:
    """Note which runs are interrupted: their processes have given no sign of life for long."""
    silent = Run.objects.filter(state=Run.State.RUNNING, beat_at__lt=Now() - SILENT)
    for pk in silent.values_list("pk", flat=True):
        interrupted(pk, "its process gave no sign of life any more")


def alive(pk: int) -> None:
    """Note that the run has a process now."""
    Run.objects.filter(pk=pk, state=Run.State.RUNNING).update(beat_at=Now())


def interrupted(pk: int, why: str) -> None:
    """Note, and audit, that the run has no process any more, unless it has come to its end."""
    running = Run.objects.filter(pk=pk, state=Run.State.RUNNING)
    if not running.update(state=Run.State.INTERRUPTED, outcome=why, ended_at=Now()):
        return
    run = Run.objects.get(pk=pk)
    if run.applies:
        audit.record(run.action, f"interrupted: {why}", who=run.who, reason=run.reason)
