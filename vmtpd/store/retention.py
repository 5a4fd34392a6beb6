"""What is forgotten: the history of messages that are done, destinations nobody asked for, files without a message.

Plain functions on the writer's connection, a few hundred rows in a transaction, so that mail never waits for the broom. What is open stays.

*Failures*: sqlite3.Error, judged by the writer; OSError of the sweep, which the next one makes good.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from sqlite3 import Connection

from vmtpd.store import database

ROWS = 500
"""Rows deleted in one transaction, or one message where that has more."""

DESTINATIONS = 30 * 86400.0
"""Seconds after which a destination that was not remembered again is forgotten."""

SLACK = 1000
"""Free pages that the database keeps for the next messages."""


def surplus(connection: Connection, before: float, keep: int) -> int:
    """How many messages are to be forgotten: those done before a time, and the oldest of those beyond `keep`."""
    done, old = connection.execute(
        "SELECT count(*), ifnull(sum(closed < ?), 0) FROM message INDEXED BY message_closed WHERE closed IS NOT NULL",
        (before,),
    ).fetchone()
    return max(int(old), int(done) - keep)


def prune(connection: Connection, at_most: int) -> int:
    """Forget the messages that were done first, at most so many and ROWS rows. Returns how many."""
    rows = 0
    forgotten: list[tuple[int]] = []
    oldest = connection.execute(
        "SELECT id FROM message INDEXED BY message_closed WHERE closed IS NOT NULL ORDER BY closed LIMIT ?",
        (min(at_most, ROWS),),
    ).fetchall()
    for (id,) in oldest:
        if rows >= ROWS:
            break
        for table, key in (("event", "message"), ("recipient", "message"), ("metadata", "message"), ("message", "id")):
            rows += connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (id,)).rowcount
        forgotten.append((id,))
    if forgotten:
        # A forgotten id is never given again, even if the clock is set back before the next start.
        last = max(id for (id,) in forgotten)
        if last > int(database.value(connection, "last_id", 0)):
            database.keep(connection, "last_id", last)
    return len(forgotten)


def prune_destinations(connection: Connection, now: float) -> None:
    """Forget destinations that nobody asked for."""
    connection.execute("DELETE FROM destination WHERE at < ? AND until < ?", (now - DESTINATIONS, now))


def shrink(connection: Connection) -> bool:
    """Give free pages back to the file system, a few of them. Returns whether there are more."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free <= SLACK:
        return False
    for _ in range(ROWS):
        # One page each: the binding takes one step of this statement, and a script would end the transaction.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return free - ROWS > SLACK


def list_folder(folder: Path) -> list[str]:
    """The names of the content files in one folder."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def without_message(connection: Connection, files: list[str]) -> list[str]:
    """Those of the files that no message names. On the reader's connection."""
    return [
        file
        for (file,) in connection.execute(
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT file FROM message WHERE file IS NOT NULL AND file = value)",
            (json.dumps(files),),
        )
    ]
