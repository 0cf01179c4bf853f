"""Show what so many conversations and asks need, and what ends first."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import CommandParser

from conversations.stores import limits
from ops.capacity.plan import Demand, Node, foresee
from ops.capacity.words import lines, trouble
from ops.management.base import OperatorCommand, Result

_DIGITS = 24


class Command(OperatorCommand):
    help = (
        "Show what so many conversations and asks need: memory, disk, nodes and processes, what ends first, and what "
        "to do next. Reckoned with figures that docs/capacity.md has; no store is asked."
    )
    changes = False

    def options(self, parser: CommandParser) -> None:
        number, whole = _number, _whole
        parser.add_argument("--conversations", type=whole(1, 10**12), required=True, metavar="N", help="held at a time")
        parser.add_argument(
            "--asks-per-second", type=number(0, 10**8), required=True, metavar="N", help="at the busiest time"
        )
        parser.add_argument("--messages", type=whole(1, 10**5), default=16, metavar="N", help="of a conversation")
        parser.add_argument(
            "--bytes-per-message", type=whole(1, 10**6), default=250, metavar="N",
            help="as it is stored: about 110 more than its text",
        )  # fmt: skip
        parser.add_argument("--tenants", type=whole(1, 10**9), default=1, metavar="N", help="of about the same size")
        node = Node()
        parser.add_argument("--node-cores", type=whole(1, 1024), default=node.cores, metavar="N")
        parser.add_argument("--node-memory", type=whole(1, 65_536), default=node.memory // 10**9, metavar="GB")
        parser.add_argument("--node-disk", type=whole(1, 10**7), default=node.disk // 10**9, metavar="GB")
        parser.add_argument(
            "--node-network", type=number(0, 10_000), default=node.network * 8 / 10**9, metavar="GBIT", help="a second"
        )

    def run(
        self,
        *,
        conversations: int,
        asks_per_second: float,
        messages: int,
        bytes_per_message: int,
        tenants: int,
        node_cores: int,
        node_memory: int,
        node_disk: int,
        node_network: float,
        **options: Any,
    ) -> Result:
        demand = Demand(conversations, asks_per_second, messages, bytes_per_message, min(tenants, conversations))
        node = Node(node_cores, node_memory * 10**9, node_disk * 10**9, node_network * 10**9 / 8)
        plan = foresee(demand, node, limits())
        totals = {"redis_bytes": plan.redis_bytes, "mongo_bytes": plan.mongo_bytes}
        return Result(asdict(plan) | totals | {"ends_first": asdict(plan.shares[0])}, lines(plan), trouble(plan))


def _number(above: int, most: int) -> Callable[[str], float]:
    """Return what reads a number above the one and at most the other."""

    def read(text: str) -> float:
        value = _decimal(text)
        if not above < value <= most:
            raise ArgumentTypeError(f"{text!r} is not above {above} and at most {most:,}")
        return float(value)

    return read


def _whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number, which may be written as 1e9."""

    def read(text: str) -> int:
        value = _decimal(text)
        if value != value.to_integral_value() or not least <= value <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")
        return int(value)

    return read


def _decimal(text: str) -> Decimal:
    """Return the number; raise ArgumentTypeError where it is none, has too many digits, or has no end."""
    shown = f"{text[:_DIGITS]}…" if len(text) > _DIGITS else text
    try:
        value = Decimal(text) if text.isascii() and len(text) <= _DIGITS and "_" not in text else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or abs(value.adjusted()) > _DIGITS:
        raise ArgumentTypeError(f"{shown!r} is not a number: write it like 1000000 or 1e6")
    return value
