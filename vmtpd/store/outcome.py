"""Outcomes: what deliveries made of recipients, recorded together, and messages that are done with them.

Plain functions that take the writer's connection, inside its transaction; they may run twice (queue.py).

*Failures*: sqlite3.Error, judged by the writer. A settlement of a recipient that is not leased says nothing new and is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from sqlite3 import Connection

from vmtpd.mail import Settlement, Submission
from vmtpd.store import arrivals, rows, totals
from vmtpd.store.events import MAX_REPLY, Event, record

_LEASED = (
    "SELECT count(*) FROM ({values}) AS given"
    " CROSS JOIN recipient r ON r.message = given.column1 AND r.n = given.column2 WHERE r.state = 'leased'"
)
_DONE = (
    "UPDATE recipient SET state = 'done', owner = NULL, tries = tries + given.column3, action = given.column4,"
    " reply = given.column5 FROM ({values}) AS given WHERE message = given.column1 AND n = given.column2"
)
_DELAY = (
    "UPDATE recipient SET state = 'queued', owner = NULL, due = ?, destination = ?, tries = tries + ?, action = 'delayed', reply = ?"
    " WHERE message = ? AND n = ? AND state = 'leased'"
)
_CLOSE = (
    "UPDATE message SET open = open - given.column2, body = CASE WHEN open = given.column2 THEN NULL ELSE body END,"
    " closed = CASE WHEN open = given.column2 THEN given.column3 END FROM ({values}) AS given WHERE id = given.column1"
)
_CLOSED = "SELECT count(*), ifnull(sum(size), 0), count(file) FROM message WHERE id IN ({values}) AND open = 0"
_FILES = "SELECT id, file FROM message WHERE id IN ({values}) AND open = 0 AND file IS NOT NULL"


def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    reports: Sequence[Submission],
    now: float,
    expires: float,
) -> list[str]:
    """Record outcomes and store the reports, queued. Returns the files that no message names any more."""
    final = _still_leased(connection, [each for each in settlements if each.outcome.action != "delayed"])
    done: Counter[int] = Counter()
    changes, happened = [], []
    delayed = 0
    for each in settlements:
        message, (n, action, _, reply, host, tls, _), due, _, attempt, warned = each
        reply = reply[:MAX_REPLY]
        if warned:
            connection.execute("UPDATE message SET warned = 1 WHERE id = ? AND warned = 0", (message,))
        if action == "delayed":
            # What is told again and again while a host is down is noted once.
            known = not attempt and _last(connection, message, n) == ("delayed", reply)
            changed = _delay(connection, each)
            delayed += changed
            if changed and not known:
                happened.append(Event(message, n, now, action, host, tls, reply, due))
        elif (message, n) in final:
            final.discard((message, n))
            done[message] += 1
            changes.append((message, n, attempt, action, reply))
            happened.append(Event(message, n, now, action, host, tls, reply))
    rows.write(connection, _DONE, changes)
    record(connection, happened)
    if reports:
        arrivals.add(connection, [arrivals.Arrival(report, 0, now, expires) for report in reports])
    return close(connection, done, now, queued=delayed, leased=-delayed - done.total())


def _still_leased(connection: Connection, settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
    """The recipients among these that are leased: nearly always all, which one question for many tells."""
    keys = {(each.message, each.outcome.n) for each in settlements}
    found = sum(cursor.fetchone()[0] for cursor in rows.each(connection, _LEASED, list(keys)))
    if found == len(keys):
        return keys
    leased = "SELECT 1 FROM recipient WHERE message = ? AND n = ? AND state = 'leased'"
    return {key for key in keys if connection.execute(leased, key).fetchone()}


def _delay(connection: Connection, settlement: Settlement) -> int:
    """A recipient that waits again. Returns 1, or 0 where it was not leased."""
    message, outcome, due, destination, attempt, _ = settlement
    values = (due, destination, attempt, outcome.reply[:MAX_REPLY], message, outcome.n)
    return connection.execute(_DELAY, values).rowcount


def close(
    connection: Connection, done: Mapping[int, int], now: float, queued: int = 0, leased: int = 0, held: int = 0
) -> list[str]:
    """Count recipients that were done, of each message; with a message's last its content goes. Returns files as settle does.

    `queued`, `leased` and `held` are what the recipients' moves change in the totals.
    """
    counted = [(message, count, now) for message, count in done.items() if count]
    ids = [(message,) for message, _, _ in counted]
    rows.write(connection, _CLOSE, counted)
    closed = octets = filed = 0
    for cursor in rows.each(connection, _CLOSED, ids):
        some, size, files = cursor.fetchone()
        closed, octets, filed = closed + some, octets + size, filed + files
    totals.change(connection, queued, leased, held, -closed, -octets, closed)
    return _let_go(connection, ids) if filed else []


def _let_go(connection: Connection, ids: Sequence[tuple[int]]) -> list[str]:
    """The files of messages that are done, where no other message names them."""
    done = [row for cursor in rows.each(connection, _FILES, ids) for row in cursor.fetchall()]
    connection.executemany("UPDATE message SET file = NULL WHERE id = ?", [(id,) for id, _ in done])
    named = "SELECT 1 FROM message WHERE file = ? LIMIT 1"
    return [
        file for file in dict.fromkeys(file for _, file in done) if not connection.execute(named, (file,)).fetchone()
    ]


def _last(connection: Connection, message: int, n: int) -> tuple[str | None, str | None] | None:
    """The action and reply that a recipient had last."""
    row: tuple[str | None, str | None] | None = connection.execute(
        "SELECT action, reply FROM recipient WHERE message = ? AND n = ?", (message, n)
    ).fetchone()
    return row
