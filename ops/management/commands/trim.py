"""Make room: what is old, long or expired, and the memory of a store that can be full."""

import re
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from conversations.stores import ALIASES, reachable
from ops import memory, trim
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result
from ops.memory import MemoryReport, Size
from ops.trim import Scope, TrimReport

_FULL, _OTHER = memory.labels()
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Command(OperatorCommand):
    help = (
        "Report, and with --apply remove, conversations that are old, turns that are too many, what has expired, or "
        f"the oldest conversations of a {_FULL} that uses too much memory. What goes from both stores stays gone; what "
        "goes from one alone is read back from the other when it is asked for."
    )

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=age, metavar="AGE", help="by the last message: 20d, 12h, 2w")
        parser.add_argument("--max-turns", type=positive, metavar="N", help="keep the newest N turns of each")
        parser.add_argument(
            "--to-memory", type=size, metavar="SIZE", help=f"what {_FULL} may use: 80%% of maxmemory, 2gb"
        )
        parser.add_argument(
            "--discard", action="store_true", help=f"with --to-memory: also what {_OTHER} does not have"
        )
        parser.add_argument("--expired", action="store_true", help="what has outlived its TTL, or has none")
        parser.add_argument("--store", choices=[*ALIASES, "both"], default="both")
        parser.add_argument("--apply", action="store_true", help="do it; without, only report")

    def would_change(self, options: dict[str, Any]) -> bool:
        return bool(options["apply"])

    def run(
        self,
        *,
        older_than: timedelta | None,
        max_turns: int | None,
        to_memory: Size | None,
        expired: bool,
        store: str,
        apply: bool,
        discard: bool,
        **options: Any,
    ) -> Result:
        if not (older_than or max_turns or to_memory or expired):
            raise _cannot("say what to trim: --older-than, --max-turns, --to-memory or --expired")
        if to_memory and store not in (memory.alias(), "both"):
            raise _cannot(f"--to-memory is about {_FULL}")
        aliases = ALIASES if store == "both" else (store,)
        _check_reachable(aliases if older_than or max_turns or expired else (memory.alias(),))
        report = TrimReport(apply, aliases)
        with self.progress("Trimming") as advance:
            scope = Scope(aliases, apply=apply, advance=advance)
            if expired:
                report.expired = trim.expired(scope)
            if older_than:
                report.older_than = trim.older_than(scope, older_than)
            if max_turns:
                report.max_turns = trim.max_turns(scope, max_turns)
            if to_memory:
                report.to_memory = memory.shrink(to_memory, apply=apply, discard=discard, advance=advance)
        return Result(report.as_dict(), _lines(report), trouble=_trouble(report))


def age(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,7})([smhdw])", text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not an age: write it like 20d, 12h or 2w")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def size(text: str) -> Size:
    try:
        return Size.parse(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a size: write it like 80%, at most 100%, 2gb or 500mb") from None


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _cannot(reason: str) -> CommandError:
    return CommandError(reason, returncode=COULD_NOT_RUN)


def _check_reachable(aliases: tuple[str, ...]) -> None:
    """Raise CommandError where one of the stores does not answer."""
    reached = reachable()
    if missing := [alias for alias in aliases if alias not in reached]:
        raise _cannot(f"{missing[0]} cannot be reached; nothing was changed. --store names the other one alone")


def _lines(report: TrimReport) -> list[str]:
    """Return the report for people."""
    verb = "removed" if report.applied else "would be removed"
    lines = [f"expired: {number:,} {name.replace('_', ' ')}" for name, number in (report.expired or {}).items()]
    if report.older_than is not None:
        each = ", ".join(f"{number:,} in {alias}" for alias, number in report.older_than.items())
        lines.append(f"old conversations {verb}: {each}")
    if cut := report.max_turns:
        lines.append(f"turns {verb}: {cut.turns:,} of {cut.conversations:,} conversations")
    if report.to_memory:
        lines += _memory_lines(report.to_memory, verb, report.applied)
    if len(report.stores) == 1 and (report.older_than is not None or report.max_turns):
        lines.append(f"From {report.stores[0]} alone: what the other store has is read back when it is asked for.")
    return lines if report.applied else [*lines, "Nothing was changed: --apply does it."]


def _memory_lines(report: MemoryReport, verb: str, applied: bool) -> list[str]:
    about = "" if applied else "about "
    copied = f"  copied to {_OTHER} first: {report.copied:,}; kept: {report.kept:,}"
    return [
        f"{_FULL} uses {report.used:,} bytes, of {report.goal:,} wanted",
        f"conversations {verb} from {_FULL}: {about}{report.removed:,}",
        *([copied] if applied else []),
        f"  {_OTHER} still has them, and they come back to {_FULL} when they are asked for.",
    ]


def _trouble(report: TrimReport) -> str:
    memory = report.to_memory
    if memory and report.applied and memory.used > memory.goal:
        return f"{_FULL} still uses {memory.used:,} bytes; there is no conversation left that could go"
    return ""
