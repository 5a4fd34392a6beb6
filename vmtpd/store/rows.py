"""Many rows in one statement.

Each step of a statement hands Python's lock to the reactor's thread and waits to get it back: under load that wait, not SQLite, is
what a row costs. A group of commits therefore writes its rows by few statements of many rows.

*Failures*: sqlite3.Error, judged by the writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from sqlite3 import Connection, Cursor
from typing import Any

MOST = 64
"""Rows of one statement: with 14 columns far below SQLite's bound on values, and few enough forms to be kept compiled."""


def write(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a statement in which `{values}` stands for the rows, in pieces of 64, 32, 16 and so on."""
    for _ in each(connection, statement, rows):
        pass


def each(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[Cursor]:
    """As `write`, giving the cursor of each piece."""
    start = 0
    while start < len(rows):
        count = min(MOST, 1 << ((len(rows) - start).bit_length() - 1))
        piece = rows[start : start + count]
        yield connection.execute(_filled(statement, len(piece[0]), count), list(chain.from_iterable(piece)))
        start += count


@lru_cache(maxsize=256)
def _filled(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("{values}", "VALUES " + ", ".join([row] * count))
