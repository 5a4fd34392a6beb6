"""The history as it is written: a row for each thing that happened, in the order of the commits. history.py reads it.

*Failures*: sqlite3.Error, judged by the writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import NamedTuple

from vmtpd.store import rows

MAX_REPLY = 2048
"""Characters of a reply that are kept."""

_EVENTS = "INSERT INTO event (message, n, at, action, host, tls, reply, next) {values}"


class Event(NamedTuple):
    """What happened to recipient n of a message (0: to the message), by which host, and when it is tried next."""

    message: int
    n: int
    at: float
    action: str
    host: str = ""
    tls: str = ""
    reply: str = ""
    next: float | None = None


def record(connection: Connection, events: Sequence[Event]) -> None:
    """Write events."""
    rows.write(connection, _EVENTS, events)


def note(connection: Connection, action: str, recipients: Iterable[tuple[int, int]], at: float) -> None:
    """Write an event without a host for each recipient (message, n)."""
    record(connection, [Event(message, n, at, action) for message, n in recipients])
