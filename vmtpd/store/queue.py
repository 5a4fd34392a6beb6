"""The queue: who is due, and who waits where.

Plain functions that take the writer's connection, inside its transaction. They may run again, when another of their group failed,
so they take values and change nothing but the database. The moves of a recipient, here and in the rooms beside:

    queued -> leased    lease, or born so (arrivals.py)
    leased -> queued    settle with `delayed` (outcome.py); start, when its owner is dead
    leased -> done      settle
    queued -> held      lease, where the row cannot be read: one bad row must not stop all others
    queued <-> held, queued or held -> done     the operator's (hold.py)

*Failures*: sqlite3.Error, judged by the writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from sqlite3 import Connection
from types import MappingProxyType
from typing import Any

from vmtp.envelope import NOTHING
from vmtpd.interfaces import IContent
from vmtpd.mail import Addressee, Client, Destination, Lease, Message
from vmtpd.store import events, rows, totals
from vmtpd.store.content import Inline

UNREADABLE = "what the store holds of this message cannot be read"

LEASE_OCTETS = 8 * 1024 * 1024
"""Octets of contents that one lease brings into memory."""

_DUE = (
    "SELECT r.due, r.message, r.n, r.address, r.params, r.tries, CASE WHEN m.file IS NULL THEN m.size ELSE 0 END, r.destination"
    " FROM recipient r INDEXED BY {index} JOIN message m ON m.id = r.message"
    " WHERE r.state = 'queued' AND {where} ORDER BY r.due, r.message, r.n LIMIT ?"
)
_SELECT_DUE = _DUE.format(index="recipient_due", where="r.due <= ?")
_SELECT_DUE_AT = _DUE.format(index="recipient_destination", where="r.destination IS ? AND r.due <= ?")
_NEXT_DESTINATION = (
    "SELECT destination FROM recipient INDEXED BY recipient_destination"
    " WHERE state = 'queued' AND destination > ? ORDER BY destination LIMIT 1"
)
_LEASE = (
    "UPDATE recipient SET state = 'leased', owner = given.column3"
    " FROM ({values}) AS given WHERE message = given.column1 AND n = given.column2"
)
_SELECT_MESSAGES = (
    "SELECT id, kind, client, sender, params, arrived, expires, warned, size, digest, file, head, body"
    " FROM message WHERE id IN (SELECT value FROM json_each(?))"
)

_Waiting = tuple[int, str, str, int]
"""Number, address, parameters and tries of a recipient that is due."""


def lease(
    connection: Connection,
    owner: int,
    limit: int,
    now: float,
    avoid: Sequence[str],
    stored: Callable[[str, int, bytes], IContent],
) -> list[Lease]:
    """Lease recipients that are due and wait at no destination to avoid; `stored` makes the content of a file."""
    taken: dict[int, list[_Waiting]] = {}
    octets = 0
    for _, message, n, address, params, tries, size, _ in _due(connection, limit, now, frozenset(avoid)):
        if message not in taken:
            if taken and octets + size > LEASE_OCTETS:
                break
            octets += size
            taken[message] = []
        taken[message].append((n, address, params, tries))
    if not taken:
        return []
    leases: list[Lease] = []
    bad: list[tuple[int, int]] = []
    for row in connection.execute(_SELECT_MESSAGES, (json.dumps(list(taken)),)):
        try:
            leases.append(_lease(row, taken[row[0]], stored))
        except (ValueError, TypeError):
            bad += [(row[0], n) for n, *_ in taken[row[0]]]
    order = {message: place for place, message in enumerate(taken)}
    leases.sort(key=lambda lease: order[lease.message.id])
    leased = [(lease.message.id, each.n, owner) for lease in leases for each in lease.recipients]
    rows.write(connection, _LEASE, leased)
    totals.change(connection, queued=-len(leased), leased=len(leased))
    if bad:
        _set_aside(connection, bad, now)
    return leases


def _lease(row: tuple[Any, ...], waiting: Sequence[_Waiting], stored: Callable[[str, int, bytes], IContent]) -> Lease:
    """A lease of a row of _SELECT_MESSAGES. Raises ValueError or TypeError where something in it cannot be read."""
    id, kind, client, sender, params, arrived, expires, warned, size, digest, file, head, body = row
    content = stored(file, size - len(head), digest) if file else Inline(body or b"", digest)
    message = Message(
        id, Client(kind, client), sender, _unpacked(params), arrived, expires, head, content, bool(warned)
    )
    return Lease(message, tuple(Addressee(n, address, _unpacked(own), tries) for n, address, own, tries in waiting))


def _set_aside(connection: Connection, recipients: Sequence[tuple[int, int]], now: float) -> None:
    """Hold what cannot be read, for the operator to see."""
    hold = "UPDATE recipient SET state = 'held', reply = ? WHERE message = ? AND n = ?"
    connection.executemany(hold, [(UNREADABLE, *each) for each in recipients])
    totals.change(connection, queued=-len(recipients), held=len(recipients))
    events.record(connection, [events.Event(*each, now, "held", reply=UNREADABLE) for each in recipients])


def _due(connection: Connection, limit: int, now: float, avoid: Set[str]) -> list[tuple[Any, ...]]:
    """Rows of _DUE, the longest due first, without those that wait at a destination to avoid."""
    found = connection.execute(_SELECT_DUE, (now, limit)).fetchall()
    free = [row for row in found if (row[-1] or "") not in avoid]
    if len(found) < limit or len(free) == limit:
        return free
    # A crowd stands in front. Go round it: from destination to destination, along the index.
    free = []
    name: str | None = None
    while len(free) < limit * 20:
        if (name or "") not in avoid:
            free += connection.execute(_SELECT_DUE_AT, (name, now, limit)).fetchall()
        if name is None:
            name = ""
            continue
        following = connection.execute(_NEXT_DESTINATION, (name,)).fetchone()
        if following is None:
            break
        (name,) = following
    free.sort(key=lambda row: row[:3])
    return free[:limit]


def next_due(connection: Connection) -> float | None:
    """When the next queued recipient is due."""
    due: float | None = connection.execute("SELECT min(due) FROM recipient WHERE state = 'queued'").fetchone()[0]
    return due


def release_all(connection: Connection) -> int:
    """Give back what dead owners leased: all, since a store on SQLite has one daemon. Returns how many."""
    released = connection.execute("UPDATE recipient SET state = 'queued', owner = NULL WHERE state = 'leased'").rowcount
    totals.change(connection, queued=released, leased=-released)
    return released


def wake(connection: Connection, destination: str, now: float, limit: int) -> int:
    """Make recipients that wait at a destination due. Returns how many."""
    return connection.execute(
        "UPDATE recipient SET due = ?1 WHERE (message, n) IN (SELECT message, n FROM recipient INDEXED BY recipient_destination"
        " WHERE state = 'queued' AND destination = ?2 AND due > ?1 ORDER BY due LIMIT ?3)",
        (now, destination, limit),
    ).rowcount


def destinations(connection: Connection) -> list[Destination]:
    """What is remembered of destinations."""
    known = connection.execute("SELECT name, state, until, failures, reply FROM destination ORDER BY name LIMIT 100000")
    return [Destination(*row) for row in known]


def remember(connection: Connection, destination: Destination, now: float) -> None:
    """Remember the state of a destination."""
    name, state, until, failures, reply = destination
    connection.execute(
        "INSERT OR REPLACE INTO destination (name, state, until, failures, reply, at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, state, until, failures, reply[: events.MAX_REPLY], now),
    )


def _unpacked(params: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(params)) if params else NOTHING
