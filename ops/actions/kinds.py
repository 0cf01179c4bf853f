"""The actions of the console: which command each one is, and what is asked for and typed before it runs."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.forms import Form

from conversations.runtime import switching
from conversations.stores import other
from ops.actions import forms
from ops.failover import checks
from ops.models import Run

FOLLOWING = 6.0
"""Seconds of a failover in which every process follows what it switches."""


class Action:
    """One that has nothing to choose; `look` and `do` are the options by which the command reports, or does it."""

    name: str
    about: str
    form: type[Form] = Form
    look: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    again = "Plan it again: what was done is kept, and the rest is done then."
    """What to do after an interruption."""

    @property
    def permission(self) -> str:
        return f"ops.run_{self.name}"

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        """Return the command's options for what was chosen in the form."""
        return []

    def agreed(self, planned: Run) -> list[str]:
        """Return the options that do what was planned."""
        return [*(word for word in planned.words if word not in self.look), *self.do]

    def typed(self, planned: Run) -> str:
        """Return the word that has to be typed."""
        return self.name

    def is_needed(self, report: Mapping[str, Any]) -> bool:
        """Return whether there is anything to do, by what the plan found."""
        return True

    def outdated(self, planned: Run) -> str:
        """Return why the plan no longer says what would be done, "" where it does."""
        return ""

    def seconds(self, report: Mapping[str, Any], looked: float) -> float:
        """Return about how long it takes, where the plan took so long. docs/capacity.md has what this is made of."""
        return looked


class Failover(Action):
    name = "failover"
    about = (
        "Make a store the primary. It writes to both, copies what is missing, compares every conversation, and "
        "switches when nothing differs."
    )
    form: type[Form] = forms.FailoverForm
    look = ("--dry-run",)
    again = "Plan it again: the next run finishes what was interrupted. Until then traffic goes where status says."

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        return [f"--to={chosen['to']}"]

    def agreed(self, planned: Run) -> list[str]:
        """Return the options; `--force` where the store that is left is out, when nothing can be copied."""
        forced = ["--force"] if without_a_copy(planned.report) else []
        return [*super().agreed(planned), *forced]

    def typed(self, planned: Run) -> str:
        return planned.words[0].removeprefix("--to=")  # type: ignore[no-any-return]

    def is_needed(self, report: Mapping[str, Any]) -> bool:
        return not report.get("already")

    def outdated(self, planned: Run) -> str:
        leaving = other(self.typed(planned))
        if without_a_copy(planned.report) and not checks.outage(leaving):
            return f"{leaving} answers again, so that it can be copied first. Make another plan"
        return ""

    def seconds(self, report: Mapping[str, Any], looked: float) -> float:
        return FOLLOWING + 2 * looked + 0.004 * int(report.get("would_copy", 0))


class Failback(Failover):
    name = "failback"
    about = "Make the store that CONV_STORE_PRIMARY names the primary again, by the same steps as a failover."
    form: type[Form] = Form

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        return []

    def typed(self, planned: Run) -> str:
        return str(settings.CONV_STORE_PRIMARY)


class Reconcile(Action):
    name = "reconcile"
    about = "Compare every conversation of both stores, and give each store what it is missing."
    do = ("--apply",)

    def is_needed(self, report: Mapping[str, Any]) -> bool:
        return bool(report.get("left"))

    def seconds(self, report: Mapping[str, Any], looked: float) -> float:
        return looked + 0.004 * int(report.get("left", 0))


class Trim(Action):
    name = "trim"
    about = (
        "Make room. What goes from both stores stays gone; what goes from one alone is read back from the other when "
        "it is asked for."
    )
    form: type[Form] = forms.TrimForm
    do = ("--apply",)

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        typed = [f"--{name.replace('_', '-')}={chosen[name]}" for name in forms.TRIMMED[:-1] if chosen[name]]
        return [*typed, *(["--expired"] if chosen["expired"] else []), f"--store={chosen['store']}"]

    def is_needed(self, report: Mapping[str, Any]) -> bool:
        return _removed(report) > 0

    def seconds(self, report: Mapping[str, Any], looked: float) -> float:
        return looked + 0.001 * _removed(report)


class Backup(Action):
    name = "backup"
    about = (
        "Write both stores into one file in the folder backups of VAR_DIR, on the machine that serves this page, and "
        "keep the newest 14 there."
    )
    look = ("--dry-run",)
    again = "Plan it again: nothing is left of what was begun, and older backups are as they were."

    def words(self, chosen: Mapping[str, Any]) -> list[str]:
        return [f"--to={settings.VAR_DIR.absolute() / 'backups'}"]

    def seconds(self, report: Mapping[str, Any], looked: float) -> float:
        return looked + 0.0007 * max(report.get("conversations", {}).values(), default=0)


def _removed(report: Mapping[str, Any]) -> int:
    """Return how many conversations, or turns of one, a plan of `trim` would remove."""
    counts = [*report.get("expired", {}).values(), *report.get("older_than", {}).values()]
    counts += [report.get("max_turns", {}).get("turns", 0), report.get("to_memory", {}).get("removed", 0)]
    return sum(counts)


ACTIONS: dict[str, Action] = {action.name: action for action in (Failover(), Failback(), Reconcile(), Trim(), Backup())}


def without_a_copy(report: Mapping[str, Any]) -> bool:
    """Return whether a plan of a failover found that the store which is left is out."""
    return "in_target" in report


def allowed(user: Any) -> list[Action]:
    """Return the actions that the user may run."""
    return [action for action in ACTIONS.values() if user.has_perm(action.permission)]


def suggested() -> dict[str, Any]:
    """Return what the forms begin with."""
    return {"to": other(switching.current().primary)}
