"""What is forgotten: the history of messages that are done, destinations nobody asked for, files without a message.

Plain functions on the writer's connection, a few hundred rows in a transaction, so that mail never waits for the broom. What is open stays.

*Failures*: sqlite3.Error, judged by the writer; OSError of the sweep, which the next one makes good.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from sqlite3 import Connection

from vmtpd.store import database, totals

ROWS = 500
"""Rows deleted in one transaction, or one message where that has more."""

DESTINATIONS = 30 * 86400.0
"""Seconds after which a destination that was not remembered again is forgotten."""

SLACK = 1000
"""Free pages that the database keeps for the next messages."""


def prune(connection: Connection, before: float, keep: int) -> int:
    """Forget messages that were done before a time, and the oldest of those beyond `keep`: some of them. Returns how many."""
    beyond = totals.done(connection) - keep
    oldest = connection.execute(
        "SELECT id, closed FROM message INDEXED BY message_closed WHERE closed IS NOT NULL ORDER BY closed LIMIT ?",
        (ROWS,),
    ).fetchall()
    rows = forgotten = last = 0
    for id, closed in oldest:
        if rows >= ROWS or (closed >= before and forgotten >= beyond):
            break
        for table, key in (("event", "message"), ("recipient", "message"), ("metadata", "message"), ("message", "id")):
            rows += connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (id,)).rowcount
        forgotten += 1
        last = max(last, id)
    if forgotten:
        totals.change(connection, done=-forgotten)
        # A forgotten id is never given again, even if the clock is set back before the next start.
        if last > int(database.value(connection, "last_id", 0)):
            database.keep(connection, "last_id", last)
    return forgotten


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
