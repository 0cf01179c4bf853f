"""The report: a row a fault, as a table for people, as Markdown for docs/guarantees.md, as JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults.judge import Verdict
from tests.faults.rows import Case

COLUMNS = ("fault", "stores", "asked", "acknowledged", "lost", "doubled", "disordered", "deleted and back", "forgotten",
           "behind", "errors", "slowest ms", "repaired s", "promises")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One case of the report; without a verdict it could not be played, for the reason in `problem`."""

    case: Case
    verdict: Verdict | None
    problem: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the content of the columns."""
        row, route = self.case
        verdict = self.verdict
        if verdict is None:
            return (row.name, str(route), *[""] * (len(COLUMNS) - 3), f"could not run: {self.problem}")
        numbers = (verdict.asked, verdict.acknowledged, verdict.lost, verdict.doubled, verdict.disordered,
                   verdict.revived, verdict.forgotten, verdict.behind)  # fmt: skip
        errors = ", ".join(f"{count} × {kind}" for kind, count in sorted(verdict.errors.items())) or "0"
        repaired = "no" if verdict.repair_seconds is None else f"{verdict.repair_seconds:.1f}"
        kept = "; ".join(verdict.broken) or "kept"
        return (row.name, str(route), *map(str, numbers), errors, f"{verdict.slowest_ms:.0f}", repaired, kept)

    def record(self) -> dict[str, Any]:
        """Return the same for a machine."""
        row, route = self.case
        known = asdict(self.verdict) if self.verdict else {"problem": self.problem}
        return {"fault": row.name, "primary": route.primary, "dual_write": route.dual_write, **known}


def exit_code(lines: Sequence[Line]) -> int:
    """Return 0 when every promise was kept, 1 when one was broken, 2 when a row could not be played."""
    if any(line.verdict is None for line in lines):
        return 2
    return int(any(line.verdict.broken for line in lines if line.verdict))


def as_json(lines: Sequence[Line]) -> str:
    return json.dumps([line.record() for line in lines], indent=1)


def as_markdown(lines: Sequence[Line]) -> str:
    rows = (COLUMNS, ("---",) * len(COLUMNS), *(line.cells() for line in lines))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def as_table(lines: Sequence[Line]) -> Table:
    table = Table(*COLUMNS, title="What clients were acknowledged, and what is there afterwards")
    for line in lines:
        fine = line.verdict is not None and not line.verdict.broken
        table.add_row(*line.cells(), style=None if fine else "bold red")
    return table


def show(console: Console, lines: Sequence[Line]) -> None:
    """Print the table; without a terminal, plain lines with a tab between two cells."""
    if console.is_terminal:
        console.print(as_table(lines))
        return
    for cells in (COLUMNS, *(line.cells() for line in lines)):
        console.out("\t".join(cells), highlight=False)
