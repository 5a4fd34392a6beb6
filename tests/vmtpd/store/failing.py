"""Connections that fail, or kill the process, at a statement of the test's choice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any


class Trouble:
    """Counts the statements of all connections that it makes, and does something before or after the n-th.

    `armed` tells whether to count. `log` is what was counted.
    """

    def __init__(self, strike: Callable[[], None], at: int = 0, after: bool = False) -> None:
        self.strike = strike
        self.at = at
        self.after = after
        self.armed = False
        self.log: list[str] = []

    def connect(self, path: str) -> sqlite3.Connection:
        """A connection that strikes."""
        trouble = self

        class Struck(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return trouble.run(sql, lambda: super(Struck, self).execute(sql, *args))

            def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
                return trouble.run(sql, lambda: super(Struck, self).executemany(sql, *args))

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Struck)

    def run(self, sql: str, execute: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Execute a statement, and strike where it is the one."""
        if not self.armed:
            return execute()
        self.log.append(sql)
        if len(self.log) != self.at:
            return execute()
        if self.after:
            execute()
        self.strike()
        return execute()


def fail(code: int, text: str) -> Callable[[], None]:
    """A strike that raises SQLite's error of a code."""

    def strike() -> None:
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        raise error

    return strike
