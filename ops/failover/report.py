"""What a failover did: typed here, and the same JSON for machines as it always was."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from conversations.policy import Routing


@dataclass(frozen=True, slots=True)
class Step:
    """One step, and what came of it."""

    step: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Already:
    """The target was the primary before; `already` unless something was left to finish."""

    already: bool


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What cannot be copied from a store that is out; None where that is unknown."""

    in_target: int
    only_in_leaving: int | None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a dry run compared, and would copy."""

    compared: int
    would_copy: int


@dataclass(frozen=True, slots=True)
class Copied:
    """How many conversations were looked at, and how many were missing something."""

    conversations: int
    copied: int


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared after the copy, and how many conversations the target is missing something of still."""

    compared: int
    differences: int


Finding = Already | LeftBehind | Rehearsed | Copied | Verified


@dataclass
class Steps:
    """The steps as they are made, each passed on to `say` at once."""

    say: Callable[[str], None]
    made: list[Step] = field(default_factory=list)

    def add(self, name: str, outcome: str) -> None:
        self.made.append(Step(name, outcome))
        self.say(f"{name}: {outcome}")


@dataclass(frozen=True, slots=True)
class FailoverReport:
    """One move of the primary."""

    leaving: str
    to: str
    dry_run: bool
    steps: tuple[Step, ...]
    resumed: bool
    """Whether an interrupted one was finished."""
    findings: tuple[Finding, ...]
    before: Routing
    after: Routing
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        fields: dict[str, Any] = {"from": self.leaving, "to": self.to, "dry_run": self.dry_run}
        fields |= {"steps": [asdict(step) for step in self.steps], "resumed": self.resumed}
        for finding in self.findings:
            fields |= asdict(finding)
        return fields | asdict(self.after)
