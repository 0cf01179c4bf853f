"""OperatorCommand: what every operator's command has in common, so that each only turns words into one call.

Exit codes: 0 fine, 1 ran and found trouble, 2 could not run.
"""

import gc
import os
import sys
from abc import abstractmethod
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from conversations.errors import ConversationError, StoreUnavailable
from conversations.runtime import datasets
from conversations.stores import check_servers, do_not_wait_at_exit, give_time
from conversations.stores.sessions import session_named
from conversations.turns import SESSION
from ops import audit, lease, ledger
from ops.errors import OperatorError
from ops.long_work import Advance, collect_seldom
from telemetry.escaping import visible
from telemetry.logs import held_back

FINE, TROUBLE, COULD_NOT_RUN = 0, 1, 2
CALL_SECONDS = 4.0
"""What a call to a store may take: a slow one makes a command slow, and must not look like one that is out."""


@dataclass
class Result:
    """What a command did: a report for --json, lines for people, and whether all is well."""

    report: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    trouble: str = ""
    """What is wrong, in one line; the command then exits with `code`."""
    code: int = TROUBLE
    unlogged: tuple[str, ...] = ()
    """Names in the report that are for the operator and not for the audit log, which names no session."""
    document: str = ""
    """Instead of lines, the text that was asked for; a file or a pipe gets it unchanged."""

    def logged(self) -> dict[str, Any]:
        """Return what of the report goes to the audit log."""
        return {name: value for name, value in self.report.items() if name not in self.unlogged}


def tenant_named(text: str) -> str:
    """Return the tenant of an option, "" for none; raise ArgumentTypeError where no tenant can have that name."""
    if not SESSION.fullmatch(session_named("x", text)):
        raise ArgumentTypeError(f"{text!r} is no tenant: it has 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    return text


def begin_work() -> None:
    """Prepare this process for a command, before its first call to a store."""
    collect_seldom()
    give_time(CALL_SECONDS)


def end_at_once() -> None:
    """Have this process end at once. Python would wait for drivers' threads and look for garbage among all objects,
    which takes most of a second; in an emergency an operator waits for each command."""
    do_not_wait_at_exit()
    gc.freeze()


class OperatorCommand(BaseCommand):
    """Parse, make one call, print its result. One that changes anything holds the operators' lease and is audited."""

    requires_system_checks = ()  # a check may ask a database, and this must work when it is down
    changes = True
    """Whether it can change anything: then it holds the operators' lease and is audited."""
    before: dict[str, Any] | None = None
    """For the audit log, what there is before anything is changed; it has that of a run which ends early too."""
    result: Result | None = None
    """What was done, once it is."""
    shown: Callable[[str], AbstractContextManager[Advance]] | None = None
    """Shows the progress where it is no terminal that shows it."""

    @abstractmethod
    def run(self, *args: Any, **options: Any) -> Result:
        """Do it and return what was done. Raise OperatorError, ConversationError or CommandError
        when it cannot be."""

    def options(self, parser: CommandParser) -> None:
        """Add the command's own options."""

    def would_change(self, options: dict[str, Any]) -> bool:
        """Return whether it can change anything when it is called with these options."""
        return self.changes

    def is_audited(self, options: dict[str, Any]) -> bool:
        """Return whether what it does with these options is for the audit log."""
        return self.would_change(options)

    def run_from_argv(self, argv: list[str]) -> None:
        begin_work()
        try:
            super().run_from_argv(argv)
        finally:
            end_at_once()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        if self.changes:
            parser.add_argument("--reason", default="", help="why, for the audit log")
        self.options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json = bool(options.pop("json"))
        self._changing, self._audited = self.would_change(options), self.is_audited(options)
        try:
            self.result = self._attempt(options)
            self._print(self.result)
        except CommandError as error:
            raise CommandError(visible(str(error)), returncode=error.returncode) from error

    def _attempt(self, options: dict[str, Any]) -> Result:
        """Return what was done, audited; raise CommandError when it could not be done."""
        try:
            with self._alone():
                if self._changing:
                    datasets.learn()
                try:
                    result = self.run(**options)
                except StoreUnavailable:
                    check_servers()
                    raise
                finally:
                    if self._changing:
                        ledger.collect_if_possible()  # VAR_DIR may end with this process, as a job's does
        except (ConversationError, OperatorError, OSError) as error:
            self._audit("failed: " + str(error), options, None)
            raise CommandError(str(error), returncode=COULD_NOT_RUN) from error
        except CommandError as error:
            self._audit("failed: " + str(error), options, None)
            raise
        except KeyboardInterrupt:
            self._audit("interrupted", options, None)
            raise CommandError("interrupted; it can be run again", returncode=TROUBLE) from None
        self._audit(result.trouble or "done", options, result)
        return result

    def _print(self, result: Result) -> None:
        """Print the result; raise CommandError where there is trouble."""
        if self.as_json:
            self._write(visible(orjson.dumps(result.report, option=orjson.OPT_INDENT_2).decode()))
        elif result.document:
            self._write(visible(result.document) if self.stdout.isatty() else result.document)
        for line in result.lines:
            self.say(line)
        if result.trouble:
            raise CommandError(result.trouble, returncode=result.code)

    def say(self, text: str) -> None:
        """Print a step as it is made, for people only. Control characters, which a store may hold, are made visible."""
        if not self.as_json:
            self._write(visible(text))

    def confirm(self, question: str, word: str, noinput: bool) -> None:
        """Return when the operator has typed the word; raise CommandError when not."""
        if noinput:
            return
        with held_back():
            self.stderr.write(f"{question} Type {word!r} to go on: ", ending="")
            try:
                typed = input()
            except EOFError:
                typed = ""
            if not sys.stdin.isatty():
                self.stderr.write("")  # a terminal has begun a new line by itself
        if typed.strip() != word:
            raise CommandError("not confirmed; nothing was changed", returncode=COULD_NOT_RUN)

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """Show the progress of slow work, on a terminal or where it is followed."""
        if self.shown:
            with self.shown(what) as advance:
                yield advance
            return
        console = Console(stderr=True)
        if self.as_json or not console.is_terminal:
            yield lambda done, total: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _write(self, text: str) -> None:
        """Write a line; EPIPE is ignored, which `head` causes after its lines."""
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _alone(self) -> AbstractContextManager[None]:
        """Return what holds the operators' lease, if anything can be changed."""
        by = f"{self._name} by {audit.operator()}, process {os.getpid()}"
        return lease.held(by) if self._changing else nullcontext()

    @property
    def _name(self) -> str:
        return self.__module__.rpartition(".")[2]

    def _audit(self, outcome: str, options: dict[str, Any], result: Result | None) -> None:
        if not self._audited:
            return
        audit.record(
            self._name,
            outcome,
            reason=str(options.get("reason", "")),
            before=self.before,
            after=result.logged() if result else None,
        )
