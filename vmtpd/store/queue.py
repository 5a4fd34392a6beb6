"""The queue: what becomes of a message's recipients, from the commit that stores it to the one that closes it.

Plain functions that take the writer's connection, inside its transaction. They may run again, when another of their group failed,
so they take values and change nothing but the database. The moves of a recipient:

    queued -> leased    lease, or born so (add)
    leased -> queued    settle with `delayed`; start, when its owner is dead
    leased -> done      settle
    queued <-> held, queued or held -> done     the operator's (hold.py)

*Failures*: sqlite3.Error, judged by the writer. A settlement of a recipient that is not leased says nothing new and is passed over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from sqlite3 import Connection
from types import MappingProxyType
from typing import Any

from vmtp.envelope import NOTHING
from vmtpd.interfaces import IContent
from vmtpd.mail import Addressee, Client, Destination, Lease, Message, Settlement, Submission
from vmtpd.store import metadata, totals
from vmtpd.store.content import Filed, Inline

MAX_REPLY = 2048
"""Characters of a reply that are kept."""

LEASE_OCTETS = 8 * 1024 * 1024
"""Octets of contents that one lease brings into memory."""

_INSERT_MESSAGE = (
    "INSERT INTO message (id, kind, client, listener, sender, params, arrived, expires, warned, open, size, digest, file, head, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"
)
_INSERT_RECIPIENT = (
    "INSERT INTO recipient (message, n, address, params, state, owner, due, destination, tries)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)"
)
_INSERT_EVENT = "INSERT INTO event (message, n, at, action, host, tls, reply, next) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
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
_LEASE = "UPDATE recipient SET state = 'leased', owner = ? WHERE message = ? AND n = ?"
_SELECT_MESSAGES = (
    "SELECT id, kind, client, sender, params, arrived, expires, warned, size, digest, file, head, body"
    " FROM message WHERE id IN (SELECT value FROM json_each(?))"
)
_DELAY = (
    "UPDATE recipient SET state = 'queued', owner = NULL, due = ?, destination = ?, tries = tries + ?, action = 'delayed', reply = ?"
    " WHERE message = ? AND n = ? AND state = 'leased'"
)
_SETTLE = (
    "UPDATE recipient SET state = 'done', owner = NULL, tries = tries + ?, action = ?, reply = ?"
    " WHERE message = ? AND n = ? AND state = 'leased'"
)
_CLOSE = (
    "UPDATE message SET open = open - ?1, body = CASE WHEN open = ?1 THEN NULL ELSE body END,"
    " closed = CASE WHEN open = ?1 THEN ?2 END WHERE id = ?3 RETURNING open, size, file"
)


def add(
    connection: Connection,
    submission: Submission,
    owner: int,
    now: float,
    expires: float,
    destinations: Sequence[str] = (),
) -> Message:
    """Store a message: leased to `owner`, or queued where that is 0; `destinations` tells where each recipient will wait."""
    id, client, envelope = submission.id, submission.client, submission.envelope
    head, content = submission.head, submission.content
    if not isinstance(content, Inline | Filed):
        raise TypeError("a content comes from a sink of this store")
    if not envelope.recipients:
        raise ValueError("a message without recipients would never be done")
    size = len(head) + content.size
    recipients = envelope.recipients
    connection.execute(
        _INSERT_MESSAGE,
        (
            id,
            client.kind,
            client.name,
            submission.listener,
            envelope.sender,
            _packed(envelope.params),
            now,
            expires,
            len(recipients),
            size,
            content.digest,
            content.file,
            head,
            content.body,
        ),
    )
    state, holder, due = ("leased", owner, now) if owner else ("queued", None, submission.not_before or now)
    waits_at = destinations or (None,) * len(recipients)
    rows = [
        (id, n, address, _packed(params), state, holder, due, destination)
        for n, ((address, params), destination) in enumerate(zip(recipients, waits_at, strict=True), 1)
    ]
    connection.executemany(_INSERT_RECIPIENT, rows)
    if submission.metadata:
        metadata.insert(connection, id, "client", submission.metadata)
    if owner:
        totals.change(connection, leased=len(recipients), messages=1, octets=size)
    else:
        totals.change(connection, queued=len(recipients), messages=1, octets=size)
    connection.execute(_INSERT_EVENT, (id, 0, now, "received", str(client), "", "", None))
    return Message(id, client, envelope.sender, envelope.params, now, expires, head, content)


def lease(
    connection: Connection,
    owner: int,
    limit: int,
    now: float,
    avoid: Sequence[str],
    stored: Callable[[str, int, bytes], IContent],
) -> list[Lease]:
    """Lease recipients that are due and wait at no destination to avoid; `stored` makes the content of a file."""
    taken: dict[int, list[Addressee]] = {}
    octets = 0
    for _, message, n, address, params, tries, size, _ in _due(connection, limit, now, frozenset(avoid)):
        addressee = Addressee(n, address, _unpacked(params), tries)
        if message in taken:
            taken[message].append(addressee)
        elif taken and octets + size > LEASE_OCTETS:
            break
        else:
            octets += size
            taken[message] = [addressee]
    if not taken:
        return []
    leased = [(owner, message, each.n) for message, some in taken.items() for each in some]
    connection.executemany(_LEASE, leased)
    totals.change(connection, queued=-len(leased), leased=len(leased))
    messages: dict[int, Message] = {}
    for row in connection.execute(_SELECT_MESSAGES, (json.dumps(list(taken)),)):
        id, kind, client, sender, params, arrived, expires, warned, size, digest, file, head, body = row
        content = stored(file, size - len(head), digest) if file else Inline(body or b"", digest)
        messages[id] = Message(
            id, Client(kind, client), sender, _unpacked(params), arrived, expires, head, content, bool(warned)
        )
    return [Lease(messages[id], tuple(some)) for id, some in taken.items()]


def _due(connection: Connection, limit: int, now: float, avoid: Set[str]) -> list[tuple[Any, ...]]:
    """Rows of _DUE, the longest due first, without those that wait at a destination to avoid."""
    rows = connection.execute(_SELECT_DUE, (now, limit)).fetchall()
    free = [row for row in rows if (row[-1] or "") not in avoid]
    if len(rows) < limit or len(free) == limit:
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


def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    reports: Sequence[Submission],
    now: float,
    expires: float,
) -> list[str]:
    """Record outcomes and store the reports, queued. Returns the files that no message names any more."""
    done: Counter[int] = Counter()
    delayed = 0
    for message, outcome, due, destination, attempt, warned in settlements:
        n, action, _, reply, host, tls, _ = outcome
        reply = reply[:MAX_REPLY]
        if action == "delayed":
            known = not attempt and _last(connection, message, n) == (action, reply)
            cursor = connection.execute(_DELAY, (due, destination, attempt, reply, message, n))
            delayed += cursor.rowcount
            after: float | None = due
        else:
            known = False
            cursor = connection.execute(_SETTLE, (attempt, action, reply, message, n))
            done[message] += cursor.rowcount
            after = None
        if cursor.rowcount and not known:
            connection.execute(_INSERT_EVENT, (message, n, now, action, host, tls, reply, after))
        if warned:
            connection.execute("UPDATE message SET warned = 1 WHERE id = ? AND warned = 0", (message,))
    for report in reports:
        add(connection, report, 0, now, expires)
    return close(connection, done, now, queued=delayed, leased=-delayed - done.total())


def close(
    connection: Connection, done: Mapping[int, int], now: float, queued: int = 0, leased: int = 0, held: int = 0
) -> list[str]:
    """Count recipients that were done, of each message; with a message's last its content goes. Returns files as settle does.

    `queued`, `leased` and `held` are what the recipients' moves change in the totals.
    """
    files: list[str] = []
    closed = octets = 0
    for message, count in done.items():
        if not count:
            continue
        for still_open, size, file in connection.execute(_CLOSE, (count, now, message)).fetchall():
            if still_open:
                continue
            closed += 1
            octets += size
            if file:
                connection.execute("UPDATE message SET file = NULL WHERE id = ?", (message,))
                if connection.execute("SELECT 1 FROM message WHERE file = ? LIMIT 1", (file,)).fetchone() is None:
                    files.append(file)
    totals.change(connection, queued, leased, held, -closed, -octets, closed)
    return files


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


def record(connection: Connection, action: str, recipients: Iterable[tuple[int, int]], now: float) -> None:
    """Write an event without a host for each recipient."""
    connection.executemany(_INSERT_EVENT, [(message, n, now, action, "", "", "", None) for message, n in recipients])


def destinations(connection: Connection) -> list[Destination]:
    """What is remembered of destinations."""
    rows = connection.execute("SELECT name, state, until, failures, reply FROM destination ORDER BY name LIMIT 100000")
    return [Destination(*row) for row in rows]


def remember(connection: Connection, destination: Destination, now: float) -> None:
    """Remember the state of a destination."""
    name, state, until, failures, reply = destination
    connection.execute(
        "INSERT OR REPLACE INTO destination (name, state, until, failures, reply, at) VALUES (?, ?, ?, ?, ?, ?)",
        (name, state, until, failures, reply[:MAX_REPLY], now),
    )


def _last(connection: Connection, message: int, n: int) -> tuple[str | None, str | None] | None:
    """The action and reply that a recipient had last."""
    row: tuple[str | None, str | None] | None = connection.execute(
        "SELECT action, reply FROM recipient WHERE message = ? AND n = ?", (message, n)
    ).fetchone()
    return row


def _packed(params: Mapping[str, str]) -> str:
    return json.dumps(dict(params)) if params else ""


def _unpacked(params: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(params)) if params else NOTHING
