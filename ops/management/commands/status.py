"""Show how things stand: routing, stores, figures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import orjson
from django.core.management.base import CommandParser
from rich.console import Console
from rich.live import Live

from ops.management.base import COULD_NOT_RUN, TROUBLE, OperatorCommand, Result
from ops.status import collect
from ops.status.layout import in_a_pipe, on_a_terminal
from telemetry.escaping import visible

EVERY = 2.0  # seconds


class Command(OperatorCommand):
    help = "Show routing, both stores, what is not in step, and the runbook's normal figures against their limits."
    changes = False

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")

    def run(self, *, watch: bool, **options: Any) -> Result:
        if watch:
            return self._watch()
        seen = collect.look()
        if self._for_a_terminal:
            out: Any = self.stdout
            Console(file=out._out).print(on_a_terminal(seen))
            return result(seen, [])
        return result(seen, in_a_pipe(seen))

    @property
    def _for_a_terminal(self) -> bool:
        return self.stdout.isatty() and not self.as_json

    def _watch(self) -> Result:
        """Show one after the other until Ctrl-C; the last one's trouble is the command's."""
        seen = collect.look()
        with self._screen() as show:
            try:
                while True:
                    show(seen)
                    sleep(EVERY)
                    seen = collect.look()
            except KeyboardInterrupt:
                self.as_json = False  # each look has been printed
                return result(seen, [])

    @contextmanager
    def _screen(self) -> Iterator[Callable[[collect.Status], None]]:
        """Yield what shows a look: in the place of the last one on a terminal, after it in a pipe."""
        if not self._for_a_terminal:
            yield self._print_look
            return
        with Live(auto_refresh=False, screen=True) as live:
            yield lambda seen: live.update(on_a_terminal(seen), refresh=True)

    def _print_look(self, seen: collect.Status) -> None:
        lines = [orjson.dumps(seen.as_dict()).decode()] if self.as_json else [*in_a_pipe(seen), ""]
        self.stdout.write(visible("\n".join(lines)))
        self.stdout.flush()


def result(seen: collect.Status, lines: list[str]) -> Result:
    return Result(seen.as_dict(), lines, seen.trouble, code=COULD_NOT_RUN if seen.blind else TROUBLE)
