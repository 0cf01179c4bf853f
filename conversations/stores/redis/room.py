"""Where a new turn goes in the string of a conversation: at its end, or into a copy that keeps what fits.

Redis' allocator has sizes in steps, four for each doubling, so a string often has some room at its end. APPEND copies
nothing then, which takes half the time of writing the whole. Without room Redis allocates twice what it needs, so until
a conversation has as many turns as readers see, it is written whole instead. Afterwards it may grow by half of those
before older turns are dropped: dropping them with every turn would cost as much as writing all.
"""

from conversations.turns import Limits

IN_PLACE = -1
_SDS = ((256, 4), (65_536, 6))  # bytes that Redis needs beside a string of fewer bytes than this
_SDS_LONG = 10
_KEPT = 10  # SET gives room back that is more than a tenth of the string


def beyond(limits: Limits) -> int:
    """Return how many turns may be stored beyond those that readers see."""
    return limits.max_turns // 2


def place(size: int, turns: int, more: int, limits: Limits) -> int | None:
    """Return how many of the oldest turns are dropped for one of so many bytes; IN_PLACE where none is and it goes at
    the end, None where that depends on the turns' sizes."""
    if size + more > limits.max_bytes:
        return None
    if turns >= limits.max_turns + beyond(limits):
        return turns + 1 - limits.max_turns
    return IN_PLACE if turns >= limits.max_turns or _has_room(size, more) else 0


def _has_room(size: int, more: int) -> bool:
    room = _allocated(size) - size
    return more <= room <= size // _KEPT and _overhead(size + more) == _overhead(size)


def _allocated(size: int) -> int:
    """Return how many bytes a string can have in what is allocated for one of this size."""
    whole = size + _overhead(size)
    step = 1 << max((whole - 1).bit_length() - 3, 4)
    return -(-whole // step) * step - _overhead(size)


def _overhead(size: int) -> int:
    return next((overhead for below, overhead in _SDS if size < below), _SDS_LONG)
