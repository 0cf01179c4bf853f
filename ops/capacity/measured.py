"""What was measured and the plan is reckoned with. docs/capacity.md has the same table, which a test compares."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure, and where it was measured."""

    what: str
    value: float
    unit: str
    source: str


_HERE = "`benchmarks.capacity`"
_OPERATIONS = "`benchmarks.operations`"

REDIS_KEY = Figure("Redis: key, expiry and table of a conversation", 145, "bytes", _HERE)
REDIS_PLACE = Figure("Redis: its place in the list", 128, "bytes", "ADR 7")
REDIS_GROWN = Figure("Redis: a conversation at its window, times one that is not", 1.25, "", "ADR 2: 1.1 to 1.5")
REDIS_KEYS = Figure("Redis: the Idempotency-Keys of a conversation, without the keys", 150, "bytes", "`MEMORY USAGE`")
REDIS_IDEMPOTENCY = Figure("Redis: an Idempotency-Key", 55, "bytes", "`MEMORY USAGE`")
REDIS_TURN = Figure("Redis: CPU of a turn", 65, "µs", _HERE)
REDIS_TURN_BYTES = Figure("Redis: bytes of a turn on the network, beside its messages", 450, "bytes", _HERE)
MONGO_DOCUMENT = Figure("MongoDB: disk of a document, beside its messages", 320, "bytes", _HERE)
MONGO_BYTE = Figure("MongoDB: disk of a byte of messages", 2.2, "bytes", f"{_OPERATIONS}, {_HERE}")
MONGO_TURN = Figure("MongoDB: CPU of a turn", 2700, "µs", f"{_HERE}, SecantusDB")
HTTP_ASKS = Figure("the service: asks a second on two cores, load and Redis on them too", 1711, "", "performance.json")
STATUS = Figure("`status`, a conversation", 0.0006, "ms", "1,000,000 in 1.2 to 1.4 s")
TRIM = Figure("`trim --older-than`, a conversation, CPU with both stores", 0.46, "ms", "`benchmarks.many`: 1,000,000")
RECONCILE = Figure("`reconcile`, a conversation, CPU with both stores", 0.59, "ms", "`benchmarks.many`: 1,000,000")
REPAIR = Figure("repairing a conversation after an outage", 3.0, "ms", "`benchmarks.repair`: 1.4 to 5.9")
BACKUP = Figure("backing up a conversation", 0.64, "ms", _OPERATIONS)

FIGURES = (
    REDIS_KEY, REDIS_PLACE, REDIS_GROWN, REDIS_KEYS, REDIS_IDEMPOTENCY, REDIS_TURN, REDIS_TURN_BYTES, MONGO_DOCUMENT,
    MONGO_BYTE, MONGO_TURN, HTTP_ASKS, STATUS, TRIM, RECONCILE, REPAIR, BACKUP,
)  # fmt: skip
