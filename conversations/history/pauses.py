"""Pauses: conversations that could not be repaired wait, each longer after every failure, and hold up no other."""

import time

FIRST, LONGEST = 1.0, 60.0  # seconds
_FORGOTTEN = 10 * LONGEST  # after which one that was not tried again has been repaired elsewhere


class Pauses:
    """What this process knows of conversations that it could not repair."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, float]] = {}
        """For each conversation the end of its pause, on the monotonic clock, and how long it is."""

    def holds(self, session: str) -> bool:
        """Return whether the conversation is to be left alone still."""
        return session in self._waiting and time.monotonic() < self._waiting[session][0]

    def failed(self, session: str) -> float:
        """Have the conversation wait, twice as long as before; return how long."""
        now = time.monotonic()
        self._waiting = {name: one for name, one in self._waiting.items() if now < one[0] + _FORGOTTEN}
        seconds = min(2 * self._waiting[session][1], LONGEST) if session in self._waiting else FIRST
        self._waiting[session] = (now + seconds, seconds)
        return seconds

    def done(self, session: str) -> None:
        """Forget a conversation that was repaired."""
        self._waiting.pop(session, None)
