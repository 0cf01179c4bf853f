"""docs/RUNBOOK.md as a test reads it: sections, the commands of their ```bash blocks, and what each should print.

A line `# => …` after a command is a line of its output, in which `…` stands for anything; a line of `…` alone is
any number of lines, and `(nothing)` no line at all. `> …` is typed into the program that the command opens.
"""

import re
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "RUNBOOK.md"
SAYS = "# =>"
ANYTHING, NOTHING = "…", "(nothing)"
# A command that fails prints one of these words, and so does the document.
_FAILED = ("command terminated with exit code", "Error", "error:")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is written, and the lines that it should print."""

    line: int
    text: str
    typed: str = ""
    """What is typed into it."""
    expected: tuple[str, ...] = ()

    @property
    def may_fail(self) -> bool:
        """Whether it may end with another code than 0: as a grep that finds nothing, or a command that is to fail."""
        return NOTHING in self.expected or any(printed.startswith(_FAILED) for printed in self.expected)

    def differs(self, output: str) -> str:
        """Return how the output differs from what is expected, "" where it does not."""
        printed = "".join(f"{' '.join(line.split())}\n" for line in output.splitlines() if line.strip())
        expected = "" if self.expected == (NOTHING,) else "".join(map(_pattern, self.expected))
        if re.fullmatch(expected, printed):
            return ""
        expected_lines = "\n".join(self.expected)
        return f"line {self.line}: {self.text} {self.typed}\n--- expected\n{expected_lines}\n--- printed\n{printed}"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the document under a heading of the second rank."""

    title: str
    text: str
    blocks: tuple[tuple[Command, ...], ...]

    @property
    def commands(self) -> tuple[Command, ...]:
        return tuple(command for block in self.blocks for command in block)


def sections() -> list[Section]:
    """Return the document's sections, with the lines before the first heading left out."""
    lines = RUNBOOK.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("## ")]
    return [_section(lines, start, end) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _section(lines: list[str], start: int, end: int) -> Section:
    blocks: list[tuple[Command, ...]] = []
    opened = 0
    for number in range(start, end):
        fence = lines[number].strip()
        if opened and fence == "```":
            blocks.append(tuple(commands(lines, opened, number)))
            opened = 0
        elif fence.startswith("```"):
            assert fence == "```bash", f"line {number + 1}: a block that no test executes: say ```bash"
            opened = number + 1
    return Section(lines[start][3:].strip(), "\n".join(lines[start:end]), tuple(blocks))


def commands(lines: list[str], start: int, end: int) -> list[Command]:
    """Return the commands of the block between these lines."""
    found: list[Command] = []
    opened = ""
    for number in range(start, end):
        line = lines[number].strip()
        if line.startswith(SAYS):
            last = found[-1]
            found[-1] = Command(last.line, last.text, last.typed, (*last.expected, line[len(SAYS) :].strip()))
        elif line.startswith("> "):
            if found[-1].text == opened and not found[-1].typed:
                found.pop()  # it is opened anew for each line that is typed
            found.append(Command(number + 1, opened, line[2:].strip()))
        elif found and found[-1].text.endswith("\\"):
            found[-1] = Command(found[-1].line, f"{found[-1].text}\n{line}")
            opened = ""
        elif line and not line.startswith("#"):
            found.append(Command(number + 1, line))
            opened = line
    return found


def _pattern(expected: str) -> str:
    if expected == ANYTHING:
        return "(?:.*\n)*"
    words = " ".join(expected.split())
    return ".*".join(map(re.escape, words.split(ANYTHING))) + "\n"
