"""What an operator does to the queue: hold, unhold, retry, delete.

Plain functions on the writer's connection, like queue.py's. Each does a slice of the queue, so that an operator who means a
million recipients does not stop the mail; the caller goes on with `after` until that is None.

*Failures*: sqlite3.Error, judged by the writer. Between two slices mail comes and goes: what arrives behind the slice is not meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from sqlite3 import Connection
from typing import NamedTuple

from vmtpd.mail import QueueFilter
from vmtpd.store import events, history, totals
from vmtpd.store.outcome import close

SLICE = 1000
"""Open messages looked at in one transaction."""


class Slice(NamedTuple):
    """How many recipients were changed, the last message looked at (None: the queue's end), files that no message names now."""

    changed: int
    after: int | None
    files: Sequence[str] = ()


def hold(connection: Connection, which: QueueFilter, now: float, after: int) -> Slice:
    """queued becomes held."""
    meant, last = _meant(connection, which, "queued", after)
    connection.executemany("UPDATE recipient SET state = 'held' WHERE message = ? AND n = ?", meant)
    totals.change(connection, queued=-len(meant), held=len(meant))
    events.note(connection, "held", meant, now)
    return Slice(len(meant), last)


def unhold(connection: Connection, which: QueueFilter, now: float, after: int) -> Slice:
    """held becomes queued and due now."""
    meant, last = _meant(connection, which, "held", after)
    _make_due(connection, meant, now)
    totals.change(connection, queued=len(meant), held=-len(meant))
    events.note(connection, "released", meant, now)
    return Slice(len(meant), last)


def retry(connection: Connection, which: QueueFilter, now: float, after: int) -> Slice:
    """queued becomes due now."""
    meant, last = _meant(connection, which, "queued", after)
    _make_due(connection, meant, now)
    return Slice(len(meant), last)


def delete(connection: Connection, which: QueueFilter, now: float, after: int) -> Slice:
    """queued and held become done, without a report."""
    queued, _ = _meant(connection, which, "queued", after)
    held, last = _meant(connection, which, "held", after)
    meant = sorted(queued + held)
    connection.executemany("UPDATE recipient SET state = 'done', action = 'deleted' WHERE message = ? AND n = ?", meant)
    events.note(connection, "deleted", meant, now)
    done = Counter(message for message, _ in meant)
    return Slice(len(meant), last, close(connection, done, now, queued=-len(queued), held=-len(held)))


def _make_due(connection: Connection, meant: Sequence[tuple[int, int]], now: float) -> None:
    connection.executemany(
        "UPDATE recipient SET state = 'queued', due = ? WHERE message = ? AND n = ?",
        [(now, message, n) for message, n in meant],
    )


def _meant(
    connection: Connection, which: QueueFilter, state: str, after: int
) -> tuple[list[tuple[int, int]], int | None]:
    """Recipients (message, n) in this state that the filter means, in the slice behind `after`; the slice's last message."""
    if which.id:
        first, last = which.id, None
    else:
        first = after + 1
        # The SLICE-th open message, where there are as many.
        row = connection.execute(
            "SELECT id FROM message INDEXED BY message_open WHERE open > 0 AND id >= ? ORDER BY id LIMIT 1 OFFSET ?",
            (first, SLICE - 1),
        ).fetchone()
        last = row and row[0]
    message, message_values = history.of_message(which)
    recipient, recipient_values = history.of_recipient(which)
    meant = connection.execute(
        "SELECT r.message, r.n FROM message m INDEXED BY message_open JOIN recipient r ON r.message = m.id"
        f" WHERE {message} AND {recipient} AND m.id >= ? AND m.id <= ? AND r.state = ? ORDER BY r.message, r.n",
        (*message_values, *recipient_values, first, last or which.id or (1 << 63) - 1, state),
    ).fetchall()
    return meant, last
