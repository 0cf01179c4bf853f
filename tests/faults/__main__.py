"""`script/faults`: play every fault against real servers and report whether what was acknowledged is still there."""

import argparse
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from tests.faults import report
from tests.faults.hosts import impossible
from tests.faults.play import KEPT, Pace, play
from tests.faults.report import Line
from tests.faults.rows import CASES, Case
from tests.faults.stack import Stacks


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/faults",
        description="Stop, freeze, fill and cut off real stores under load, and report what became of every turn.",
        epilog="Exit code 0: every promise was kept; 1: one was broken; 2: a fault could not be played.",
    )
    parser.add_argument("--only", metavar="NAME", help="play only the faults that have this in their name")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="report as JSON")
    output.add_argument("--markdown", action="store_true", help="report as a Markdown table")
    return parser.parse_args(words)


def chosen(only: str | None) -> list[Case]:
    return [case for case in CASES if not only or only in case[0].name]


def possible(cases: Sequence[Case], progress: Console) -> list[Case]:
    """Return the cases that can be played here; print how many cannot, and why."""
    on_hosts = [case for case in cases if case[0].setup.hosts]
    if not on_hosts or not (why := impossible()):
        return list(cases)
    say(progress, f"{len(on_hosts)} rows on hosts of their own are skipped: no network namespace can be made ({why})")
    return [case for case in cases if case not in on_hosts]


def play_all(cases: Sequence[Case], progress: Console) -> list[Line]:
    """Play one case after another, and print each: it takes a quarter of an hour."""
    lines: list[Line] = []
    stacks = Stacks()
    try:
        for number, case in enumerate(cases, start=1):
            progress.print(
                f"{number}/{len(cases)} {case[0].name}, {case[1]}: {case[0].sentence}", highlight=False, soft_wrap=True
            )
            line = _play(stacks, case)
            lines.append(line)
            if line.verdict is None or line.verdict.broken:
                _tell(progress, line)
                stacks.discard()  # a broken stack must not fail the next row
    finally:
        stacks.discard()
    return lines


def _play(stacks: Stacks, case: Case) -> Line:
    row, route = case
    try:
        return Line(case, play(stacks.get(row.setup, route), case, Pace()))
    except Exception as error:  # whatever it is, the other rows can still be played
        return Line(case, None, f"{type(error).__name__}: {error}")


def _tell(progress: Console, line: Line) -> None:
    if line.verdict is None:
        say(progress, f"    could not run: {line.problem}")
        return
    say(progress, f"    broken: {'; '.join(line.verdict.broken)} (see {KEPT})")
    for example in line.verdict.examples[:3]:
        say(progress, f"    {example}")


def say(progress: Console, text: str) -> None:
    progress.print(text, highlight=False, markup=False, soft_wrap=True)


def main(words: Sequence[str]) -> int:
    options = arguments(words)
    cases = chosen(options.only)
    if not cases:
        names = dict.fromkeys(case[0].name for case in CASES)
        sys.stderr.write(f"script/faults: no fault is called {options.only}; there are: {'; '.join(names)}\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # by way of `finally`, which stops what runs
    progress = Console(stderr=True)
    lines = play_all(possible(cases, progress), progress)
    if options.json:
        sys.stdout.write(f"{report.as_json(lines)}\n")
    elif options.markdown:
        sys.stdout.write(f"{report.as_markdown(lines)}\n")
    else:
        report.show(Console(), lines)
    return report.exit_code(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
