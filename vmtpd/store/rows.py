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

MOST = 16
"""Rows of one statement: each number of rows is a statement of its own, and few enough of them to be kept compiled."""


def write(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a statement in which `{values}` stands for the rows, in pieces of at most 16."""
    for _ in each(connection, statement, rows):
        pass


def each(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> Iterator[Cursor]:
    """As `write`, giving the cursor of each piece."""
    for start in range(0, len(rows), MOST):
        piece = rows[start : start + MOST]
        yield connection.execute(_filled(statement, len(piece[0]), len(piece)), list(chain.from_iterable(piece)))


@lru_cache(maxsize=256)
def _filled(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace("{values}", "VALUES " + ", ".join([row] * count))
