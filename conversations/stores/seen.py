"""The names that a walk has seen: a store may name one twice."""

from collections.abc import Iterable
from hashlib import blake2b


class Seen:
    """Digests of 16 bytes instead of the names; once there are `most` of them, no more are added."""

    def __init__(self, most: float = float("inf")) -> None:
        self._most = most
        self._digests: set[bytes] = set()

    def new(self, names: Iterable[bytes]) -> list[bytes]:
        """Return those of the names that are not known to have been seen, each once; they are seen from now on."""
        digests = {blake2b(name, digest_size=16).digest(): name for name in names}
        new = [name for digest, name in digests.items() if digest not in self._digests]
        if len(self._digests) < self._most:
            self._digests |= digests.keys()
        return new
