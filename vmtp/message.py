"""The header of a message, as octets (RFC 5322 section 2.2), and the few fields that a mail system makes.

A message is never parsed as a whole: `Header` collects the header while content passes, in bounded memory, and answers what a relay
must know. What it cannot read it leaves alone: a relay forwards what it does not understand.

*Failures*: none. Beyond `MAX_HEADER` octets, what follows counts as body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import lru_cache

MAX_HEADER = 65536

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_NAMES = re.compile(rb"^([!-9;-~]+)[ \t]*:", re.MULTILINE)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Header:
    """The header of a message that is passing. Feed it content until it is `complete`."""

    __slots__ = ("_octets", "complete")

    def __init__(self) -> None:
        self._octets = b""
        self.complete = False

    def feed(self, piece: bytes) -> None:
        """Take a piece of content; what stands behind the header is not kept."""
        if self.complete:
            return
        octets = self._octets + piece if self._octets else piece
        blank = 0 if octets.startswith(b"\r\n") else octets.find(b"\r\n\r\n") + 2
        found = blank != 1
        self.complete = found or len(octets) >= MAX_HEADER
        self._octets = octets[: blank if found else MAX_HEADER]

    @property
    def octets(self) -> bytes:
        """The header as far as it was seen, with the CRLF of its last line."""
        return self._octets

    @property
    def absent(self) -> bool:
        """Whether the content begins with text that is no field, so that a blank line must stand before it."""
        return bool(self._octets) and _FIELD.match(self._octets) is None

    def names(self) -> list[bytes]:
        """The names of the fields, in lower-case and in their order."""
        return _NAMES.findall(self._octets.lower())


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each field of a header: its name in lower-case, and its octets with folds and final CRLF. Stops at what is no field."""
    start = 0
    while match := _FIELD.match(header, start):
        end = header.find(b"\r\n", match.end())
        while end >= 0 and header[end + 2 : end + 3] in (b" ", b"\t"):
            end = header.find(b"\r\n", end + 2)
        end = len(header) if end < 0 else end + 2
        yield match[1].lower(), header[start:end]
        start = end


def date(seconds: float) -> str:
    """A date-time of RFC 5322 section 3.3, in UTC."""
    return _date(int(seconds))


@lru_cache(maxsize=8)
def _date(seconds: int) -> str:
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"
    )
