"""The database of a store: its folder, its lock, its connections, its schema.

The folder holds `queue.db` with its log, `content/`, `lock` and `reserve`; all are ours alone (mode 0700 and 0600), as mail is private.

*Failures*: StoreUnusable, with a sentence for the operator: another daemon holds the lock, the files are not ours to write,
the database is damaged, or a newer daemon made it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import TypeVar

from vmtpd.interfaces import StoreUnusable, TooMuch
from vmtpd.store.files import sync_folder

T = TypeVar("T")

FILE = "queue.db"

Connect = Callable[[str], sqlite3.Connection]
"""Opens a database file; tests pass one that fails."""

PATIENCE = 10.0
"""Seconds to wait for another program that holds the database, such as a backup."""

MAX_LOG = 16 * 1024 * 1024
"""Octets that the database's log keeps on disk once a burst is over."""

_BUSY_FOR_READERS = 0.2
_STEPS_BETWEEN_LOOKS = 2000


def connect(path: str) -> sqlite3.Connection:
    """A connection that begins no transaction by itself and may move to the thread that will use it."""
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


class Lock:
    """Keeps a second daemon from a folder, as long as this one lives."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing, and take the lock. Raises StoreUnusable."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusable(f"{folder} cannot hold the queue: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreUnusable(f"{folder} is in use by another daemon (process {pid or 'unknown'})") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another daemon in; more than once does no harm."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def open_writer(folder: Path, connect: Connect) -> sqlite3.Connection:
    """The connection that writes, on a database with today's schema. Raises StoreUnusable."""
    path = folder / FILE
    try:
        (folder / "content").mkdir(mode=0o700, exist_ok=True)
        # Made here for its mode; SQLite gives its log the same.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(folder)
        connection = connect(str(path))
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(f"the queue in {folder} cannot be opened: {error}") from error
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or it has no effect
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -4096")
        connection.execute("PRAGMA wal_autocheckpoint = 1000")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG}")
        _migrate(connection)
    except sqlite3.Error as error:
        connection.close()
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        remedy = "make room on its disk" if full else "restore it from a backup or move it away"
        raise StoreUnusable(f"the queue in {folder} cannot be used, {remedy}: {error}") from error
    except StoreUnusable:
        connection.close()
        raise
    return connection


def open_reader(folder: Path, connect: Connect) -> sqlite3.Connection:
    """A connection that cannot write. Raises StoreUnusable."""
    try:
        connection = connect(str(folder / FILE))
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -2048")
    except sqlite3.Error as error:
        raise StoreUnusable(f"the queue in {folder} cannot be read: {error}") from error
    return connection


def ask(connection: sqlite3.Connection, question: Callable[..., T], *args: object) -> T:
    """Put a question to the reader's connection, in one transaction. Raises TooMuch when it takes longer than 200 ms."""
    end = time.monotonic() + _BUSY_FOR_READERS
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
    connection.execute("BEGIN")
    try:
        return question(connection, *args)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise TooMuch("the queue is too long for this question: ask for less") from error
        raise
    finally:
        # A read transaction left open would let the log grow without end.
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def value(connection: sqlite3.Connection, key: str, default: str | int = "") -> str | int:
    """A value of the table `store`."""
    row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
    found: str | int = default if row is None else row[0]
    return found


def keep(connection: sqlite3.Connection, key: str, value: str | int) -> None:
    """Set a value of the table `store`."""
    connection.execute("INSERT OR REPLACE INTO store (key, value) VALUES (?, ?)", (key, value))


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to the newest number: files of schema/ in their order, in one transaction."""
    files = sorted(
        (file for file in resources.files("vmtpd.store").joinpath("schema").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    newest = int(files[-1].name.removesuffix(".sql"))
    with closing(connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store'")) as found:
        present = int(value(connection, "schema", 0)) if found.fetchone() else 0
    if present > newest:
        raise StoreUnusable(f"the queue was made by a newer daemon (schema {present}, this one knows {newest})")
    if present == newest:
        return
    scripts = [file.read_text() for file in files if int(file.name.removesuffix(".sql")) > present]
    try:
        connection.executescript(
            "BEGIN IMMEDIATE;\n"
            + "\n".join(scripts)
            + f"\nINSERT OR REPLACE INTO store (key, value) VALUES ('schema', {newest});\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
