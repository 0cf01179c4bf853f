"""Make room: what is old, long or expired, and Redis' memory."""

import re
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from conversations.stores import ALIASES, MONGO, REDIS
from ops import direct
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result
from ops.trim import Trimmer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Command(OperatorCommand):
    help = (
        "Report, and with --apply remove, conversations that are old, turns that are too many, what has expired, or "
        "the oldest conversations of a Redis that uses too much memory. What goes from both stores stays gone; what "
        "goes from one alone is read back from the other when it is asked for."
    )

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=age, metavar="AGE", help="by the last message: 20d, 12h, 2w")
        parser.add_argument("--max-turns", type=positive, metavar="N", help="keep the newest N turns of each")
        parser.add_argument("--to-memory", type=size, metavar="SIZE", help="what Redis may use: 80%% of maxmemory, 2gb")
        parser.add_argument("--discard", action="store_true", help="with --to-memory: also what MongoDB does not have")
        parser.add_argument("--expired", action="store_true", help="what has outlived its TTL, or has none")
        parser.add_argument("--store", choices=[*ALIASES, "both"], default="both")
        parser.add_argument("--apply", action="store_true", help="do it; without, only report")

    def handle(self, *args: Any, **options: Any) -> None:
        self.changes = bool(options["apply"])  # a look needs no lease and no audit entry
        super().handle(*args, **options)

    def run(
        self,
        *,
        older_than: timedelta | None,
        max_turns: int | None,
        to_memory: str | None,
        expired: bool,
        store: str,
        apply: bool,
        discard: bool,
        **options: Any,
    ) -> Result:
        if not (older_than or max_turns or to_memory or expired):
            raise _cannot("say what to trim: --older-than, --max-turns, --to-memory or --expired")
        if to_memory and store == MONGO:
            raise _cannot("--to-memory is about Redis")
        aliases = ALIASES if store == "both" else (store,)
        needed = aliases if older_than or max_turns or expired else (REDIS,)
        reached = direct.reachable()
        if missing := [alias for alias in needed if alias not in reached]:
            raise _cannot(f"{missing[0]} cannot be reached; nothing was changed. --store names the other one alone")
        facts: dict[str, Any] = {"applied": apply, "stores": list(aliases)}
        with self.progress("Trimming") as advance:
            trimmer = Trimmer(aliases, apply=apply, advance=advance)
            if expired:
                facts["expired"] = trimmer.expired()
            if older_than:
                facts["older_than"] = trimmer.older_than(older_than)
            if max_turns:
                facts["max_turns"] = trimmer.max_turns(max_turns)
            if to_memory:
                facts["to_memory"] = trimmer.to_memory(to_memory, discard=discard)
        return Result(facts, _told(facts), trouble=_trouble(facts))


def age(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,7})([smhdw])", text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is not an age: write it like 20d, 12h or 2w")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def size(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,3})?(%|[kmg]?b)?", text.lower()):
        raise ArgumentTypeError(f"{text!r} is not a size: write it like 80%, 2gb or 500mb")
    return text


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _cannot(reason: str) -> CommandError:
    return CommandError(reason, returncode=COULD_NOT_RUN)


def _told(facts: dict[str, Any]) -> list[str]:
    done = facts["applied"]
    verb = "removed" if done else "would be removed"
    lines = []
    if found := facts.get("expired"):
        lines += [f"expired: {number:,} {name.replace('_', ' ')}" for name, number in found.items()]
    if found := facts.get("older_than"):
        each = ", ".join(f"{number:,} in {alias}" for alias, number in found.items())
        lines.append(f"old conversations {verb}: {each}")
    if found := facts.get("max_turns"):
        lines.append(f"turns {verb}: {found['turns']:,} of {found['conversations']:,} conversations")
    if found := facts.get("to_memory"):
        lines.append(f"Redis uses {found['used']:,} bytes, of {found['goal']:,} wanted")
        about = "" if done else "about "
        lines.append(f"conversations {verb} from Redis: {about}{found['removed']:,}")
        if done:
            lines.append(f"  copied to MongoDB first: {found['moved_to_mongo']:,}; kept: {found['kept']:,}")
        lines.append("  MongoDB still has them, and they come back to Redis when they are asked for.")
    if len(facts["stores"]) == 1 and ("older_than" in facts or "max_turns" in facts):
        lines.append(f"From {facts['stores'][0]} alone: what the other store has is read back when it is asked for.")
    return lines if done else [*lines, "Nothing was changed: --apply does it."]


def _trouble(facts: dict[str, Any]) -> str:
    memory = facts.get("to_memory")
    if memory and facts["applied"] and memory["used"] > memory["goal"]:
        return f"Redis still uses {memory['used']:,} bytes; there is no conversation left that could go"
    return ""
