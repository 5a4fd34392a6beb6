"""Metadata of messages: pairs that a client said, or a server added, kept beside the content and never put into it.

*Failures*: sqlite3.Error, judged by the writer. Keys and values were bounded where they came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection
from typing import Literal


def insert(connection: Connection, message: int, by: Literal["client", "server"], pairs: Mapping[str, str]) -> None:
    """Keep pairs of a message. A key is kept once for each side."""
    connection.executemany(
        "INSERT INTO metadata (message, by, key, value) VALUES (?, ?, ?, ?)",
        [(message, by, key, value) for key, value in pairs.items()],
    )


def of(connection: Connection, message: int) -> dict[str, dict[str, str]]:
    """The pairs of a message, by side."""
    sides: dict[str, dict[str, str]] = {}
    rows = connection.execute("SELECT by, key, value FROM metadata WHERE message = ? LIMIT 1000", (message,))
    for by, key, value in rows:
        sides.setdefault(by, {})[key] = value
    return sides
