"""The manifest of a backup: what is in it, and what each of its files must be like."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import orjson

from conversations.ids import stamp
from conversations.stores import ALIASES
from ops.errors import BadBackup

FORMAT, VERSION = "onesource-backup", 2
MAX_MANIFEST = 2**20  # bytes
FOREIGN = "foreign: not a backup made by `backup --to`"
NEWER = "newer: it was made by a later version of onesource; restore it with that one"


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a backup."""

    bytes: int
    sha256: str
    lines: int | None = None
    """Of the conversations: how many there are."""
    raw_bytes: int | None = None
    """Of the conversations in format 1, which are packed: their bytes unpacked."""

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(slots=True)
class Counts:
    """What a backup has of one store, and how much that was corrupt it does not have."""

    conversations: int = 0
    turns: int = 0
    tombstones: int = 0
    corrupt: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup."""

    created: datetime
    tool: str
    stores: tuple[str, ...]
    counts: Mapping[str, Counts]
    snapshot: str
    """How the store's own snapshot was reached; without one, why."""
    files: Mapping[str, Member]
    version: int = VERSION
    datasets: Mapping[str, str] = field(default_factory=dict)
    """The id of each store's dataset: a store that still has it knows of every deletion since."""
    tenant: str | None = None
    """Whose conversations alone are in it, "" for those of no tenant; None for all."""

    @property
    def is_complete(self) -> bool:
        """Whether it has all conversations of both stores."""
        return self.tenant is None and set(self.stores) == set(ALIASES)

    @classmethod
    def parse(cls, data: bytes) -> "Manifest":
        """Return the manifest; raise BadBackup where it is none, or of a later version."""
        try:
            fields = orjson.loads(data)
            if not isinstance(fields, dict):
                raise TypeError
        except (ValueError, TypeError):
            raise BadBackup("damaged: its manifest is not one") from None
        if fields.get("format") != FORMAT:
            raise BadBackup(FOREIGN)
        if type(fields.get("version")) is not int or fields["version"] > VERSION:
            raise BadBackup(NEWER)
        try:
            return cls._of(fields)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadBackup("damaged: its manifest is not one") from None

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> "Manifest":
        manifest = cls(
            datetime.fromisoformat(fields["created"]),
            fields["tool"],
            tuple(fields["stores"]),
            {alias: Counts(**counts) for alias, counts in fields["counts"].items()},
            fields["snapshot"],
            {name: Member(**member) for name, member in fields["files"].items()},
            fields["version"],
            dict(fields.get("datasets", {})),
            fields.get("tenant"),
        )
        members = manifest.files.values()
        numbers = [number for one in members for number in (one.bytes, one.lines, one.raw_bytes) if number is not None]
        numbers += [number for counts in manifest.counts.values() for number in asdict(counts).values()]
        texts = [
            manifest.tool,
            manifest.snapshot,
            manifest.tenant or "",
            *manifest.stores,
            *manifest.datasets.values(),
            *(one.sha256 for one in members),
        ]
        right = all(type(one) is int and one >= 0 for one in numbers) and all(type(one) is str for one in texts)
        if not right or manifest.created.tzinfo is None:
            raise ValueError
        return manifest

    def as_bytes(self) -> bytes:
        """Return it as it is written."""
        fields = {
            "format": FORMAT,
            "version": self.version,
            "created": stamp(self.created),
            "tool": self.tool,
            "stores": self.stores,
            **({} if self.tenant is None else {"tenant": self.tenant}),
            "datasets": self.datasets,
            "counts": {alias: asdict(counts) for alias, counts in self.counts.items()},
            "snapshot": self.snapshot,
            "files": {name: member.as_dict() for name, member in self.files.items()},
        }
        return orjson.dumps(fields, option=orjson.OPT_INDENT_2)
