"""How a history is kept in Redis: JSON lines, readable by redis-cli, each with its id and time at the end."""

import json
import re
from typing import Any

from conversations.used_keys import LIFETIME, MOST, Keys, oldest, unite

# In content every quote is escaped, so this can only be the end of a line.
_END = re.compile(rb'"id":"([0-9a-f-]{36})","at":"[^"]{24}"}\n')
TAIL = 77  # bytes from `"id":"` to the end of a line, newline included: see lua/include/turns.lua


_WIDEST = 12  # bytes of one character in JSON: two escapes of six
_WORDS = re.compile(rb'{"role":"user","content":"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])*)')


def turn_ids(value: bytes) -> list[str] | None:
    """Return the ids of the turns, without decoding the rest; None where it shows that it is no history."""
    ids: list[bytes] = _END.findall(value)
    whole = value.endswith(b"\n") and len(ids) == value.count(b"\n") and len(ids) % 2 == 0
    return [one.decode() for one in ids[::2]] if whole else None


def keeping() -> tuple[int, int, int]:
    """Return how Idempotency-Keys are kept, as arguments of a script."""
    return oldest(), MOST, int(LIFETIME.total_seconds())


def kept_arguments(keys: Keys) -> list[Any]:
    """Return the arguments of the script that keeps these Idempotency-Keys."""
    return [*keeping(), *(part for key, at in keys.items() for part in (key, at))]


def keys_of(pairs: Any) -> Keys:
    """Return the Idempotency-Keys that are kept, none where something of another type is stored."""
    return unite({key.decode(errors="replace"): int(at) for key, at in pairs}) if isinstance(pairs, list) else {}


def stamps(tail: bytes) -> tuple[str, str]:
    """Return the id and the time in the last TAIL bytes of a line."""
    text = tail.decode("ascii", "replace")
    return text[6:42], text[50:74]


def question_bytes(characters: int) -> int:
    """Return how many bytes of a question's line have so many characters of its content at the least."""
    return characters and len('{"role":"user","content":"') + _WIDEST * characters


def question_in(line: bytes) -> str:
    """Return the content in the beginning of a question's line, as far as it goes; "" where another program wrote it in
    another form."""
    found = _WORDS.match(line)
    if not found:
        return ""
    try:
        text: str = json.loads(f'"{found[1].decode(errors="ignore")}"', strict=False)
    except ValueError:
        return ""
    return text.encode(errors="ignore").decode()  # half a surrogate pair may be cut off


def flag_text(value: bytes) -> str:
    """Return a part of a flag as it is stored, also where another program wrote it and it is no UTF-8."""
    return value.decode(errors="surrogateescape")


def flag_bytes(text: str) -> bytes:
    """Return what flag_text made a text of."""
    return text.encode(errors="surrogateescape")
