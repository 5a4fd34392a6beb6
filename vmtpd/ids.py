"""Queue ids: the name of a message from the first reply to the last line of its story.

An id is a positive integer of 63 bits: 41 of milliseconds since 2024-01-01 UTC, 10 of the node, 12 of a count. Ids sort by
their making, serve as row numbers, and are written as 13 lower-case letters of Crockford's base 32, which are
safe in logs, file names and a Message-ID, and can be read aloud.

*Failures*: a clock that steps back, or ids made faster than 4096 a millisecond, run ahead of the clock and never repeat. `decode`
raises ValueError for what is no id. The 41 bits end in 2093: then `next` raises OverflowError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

EPOCH = 1_704_067_200
"""2024-01-01T00:00:00Z, in seconds since 1970."""

NODES = 1 << 10
COUNTS = 1 << 12

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 13
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
# Not str.lower(): it turns some letters beyond ASCII into these.
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_VALUES |= {letter.upper(): value for letter, value in _VALUES.items()}
_VALUES |= {"o": 0, "O": 0, "i": 1, "I": 1, "l": 1, "L": 1}


class Ids:
    """Gives ids, each greater than all before.

    `clock` tells the time in seconds since 1970, `node` is 0 to 1023, `last` the greatest id that was ever given.
    """

    def __init__(self, clock: Callable[[], float], node: int = 0, last: int = 0) -> None:
        if not 0 <= node < NODES:
            raise ValueError(f"a node is a number from 0 to {NODES - 1}, not {node}")
        self._clock = clock
        self._node = node * COUNTS
        # Whatever node and count the last one had, the next millisecond is above it.
        self._millisecond = last >> 22
        self._count = COUNTS - 1

    def next(self) -> int:
        """A new id."""
        now = int((self._clock() - EPOCH) * 1000)
        if now > self._millisecond:
            self._millisecond, self._count = now, 0
        elif self._count < COUNTS - 1:
            self._count += 1
        else:
            self._millisecond, self._count = self._millisecond + 1, 0
        if self._millisecond >= 1 << 41:
            raise OverflowError("queue ids end in the year 2093; is the clock right?")
        return self._millisecond << 22 | self._node | self._count


@lru_cache(maxsize=256)
def encode(id: int) -> str:
    """The 13 letters of an id. Raises ValueError for a number that is none."""
    if not 0 <= id < 1 << 63:
        raise ValueError("a queue id is a number of 63 bits")
    pairs = _PAIRS
    return (
        _ALPHABET[id >> 60]
        + pairs[id >> 50 & 1023]
        + pairs[id >> 40 & 1023]
        + pairs[id >> 30 & 1023]
        + pairs[id >> 20 & 1023]
        + pairs[id >> 10 & 1023]
        + pairs[id & 1023]
    )


def decode(letters: str) -> int:
    """The id of 13 letters, small or capital; o is read as 0, i and l as 1. Raises ValueError for anything else."""
    if len(letters) != _LENGTH:
        raise ValueError(f"a queue id has {_LENGTH} letters")
    id = 0
    for letter in letters:
        value = _VALUES.get(letter)
        if value is None:
            raise ValueError("a queue id has letters and digits only, and no u")
        id = id << 5 | value
    if id >= 1 << 63:
        raise ValueError("a queue id begins with a digit from 0 to 7")
    return id
