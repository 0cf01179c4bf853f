"""The status as plain lines for a pipe, and as coloured tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ops.status.collect import Status
from ops.status.render import Cell, Level, Table, tables
from telemetry.escaping import visible

STYLES = {None: "", Level.OK: "", Level.WARN: "yellow", Level.BAD: "bold red", Level.UNKNOWN: "dim"}


def in_a_pipe(status: Status) -> list[str]:
    """Return plain lines, their columns aligned."""
    blocks = [[*_aligned(table), ""] for table in tables(status)]
    return [line for block in blocks for line in block][:-1]


def _aligned(table: Table) -> list[str]:
    rows = [table.head, *(tuple(cell.text for cell in row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def on_a_terminal(status: Status) -> Group:
    """Return tables; what is wrong is red."""
    title = Text(visible(f"onesource at {status.at}: {status.trouble or status.verdict.lower()}"), style="bold")
    return Group(title, *map(_coloured, tables(status)))


def _coloured(table: Table) -> RenderableType:
    coloured = RichTable(*table.head, title_justify="left")
    for row in table.rows:
        coloured.add_row(*map(_text, row))
    return coloured


def _text(cell: Cell) -> Text:
    """Return visible text, never markup: a reason may hold anything."""
    return Text(visible(cell.text), style=STYLES[cell.level])
