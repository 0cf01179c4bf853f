"""How a new turn is stored: at the end of its conversation's string, or with the string written anew.

Redis allocates twice what a string needs when APPEND finds no room at its end, and SET frees spare room of more than a
tenth. So a conversation is SET whole, unless there happens to be room for the turn, until it has as many turns as
readers see. Then it gets room for more turns: SET to nothing, APPEND of half as many bytes as it is to have room for,
and APPEND of the rest. The next turns are added in place. When the room is used up, the oldest turns are dropped
together: dropping one with every turn would cost as much as writing all.
"""

from dataclasses import dataclass

from conversations.turns import Limits

_SDS = ((256, 4), (65_536, 6))  # bytes that Redis needs beside a string of fewer bytes than this
_SDS_LONG = 10
_KEPT = 10  # SET gives room back that is more than a tenth of the string


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to the string."""

    in_place: bool = False
    """The turn is added at the end."""
    dropped: int = 0
    """How many of the oldest turns go. Else the string is written anew."""
    half: int = 0
    """Half of the bytes to allocate, what is written included; 0 for no more than that."""


IN_PLACE, WHOLE = Step(in_place=True), Step()


def beyond(limits: Limits) -> int:
    """Return how many turns may be stored beyond those that readers see."""
    return limits.max_turns * 3 // 10


def step(size: int, turns: int, more: int, limits: Limits) -> Step | None:
    """Return how a turn of so many bytes is added to so many turns; None where that depends on the turns' sizes,
    or where none of them stays."""
    if size + more > limits.max_bytes:
        return None
    most = limits.max_turns + beyond(limits)
    if turns >= most or turns == limits.max_turns:
        # One turn more than readers see is left: a string with just as many is taken for one that has no room yet.
        dropped = turns + 1 - min(limits.max_turns + 1, most) if turns >= most else 0
        if dropped == turns:
            return None
        each = size // turns
        kept, to_come = size - dropped * each, most - turns - 1 + dropped
        return Step(dropped=dropped, half=min((kept + more + to_come * max(each, more) + 1) // 2, kept))
    if turns > limits.max_turns or _has_room(size, more):
        return IN_PLACE
    return WHOLE


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
