"""The writer: one connection, one transaction for all jobs that wait, the next when the last is durable.

There is no timer: while a commit runs, jobs gather, and the busier the daemon the more share a commit. A job is a function of
queue.py, outcome.py, hold.py or retention.py, called with the connection inside the transaction; arrivals are taken together.

*Failures*, told apart by SQLite's own codes:

- a job's own fault (an id that exists): the group is rolled back and done again in halves, until the bad one fails alone;
- no room: adds fail with StoreFull; the reserve file is freed so that outcomes still commit, and made again when there is room.
  Until then, and while less than `min_free` octets are free, adds fail before they write;
- held by another program for too long: StoreFull, as nothing was written;
- the disk failed: StoreBroken for the whole group and all that come, and `on_broken` hears of it once. A failed fsync may have written
  all the same, so nothing may be tried again on what the kernel still shows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from vmtpd.interfaces import StoreBroken, StoreFull
from vmtpd.store.threads import Job

RESERVE = 16 * 1024 * 1024
"""Octets of the reserve file."""

FOR_START = 1024 * 1024
"""Octets that must be free to open the database: its log grows before any mail leaves."""

_BROKEN = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    }
)
_LATER = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM})


class Writer:
    """Does groups of jobs in the writer's thread. `clock` tells seconds, `on_broken` is called in that thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        clock: Callable[[], float],
        min_free: int,
        on_broken: Callable[[StoreBroken], None],
    ) -> None:
        self.connection = connection
        self._clock = clock
        self._on_broken = on_broken
        self._room = Room(folder, min_free)
        self._looked = clock()
        self._broken: StoreBroken | None = None
        self._room.look()

    def perform(self, jobs: Sequence[Job]) -> None:
        """Do the jobs of a group: in one transaction if that works."""
        if self._broken is None and any(job.adds for job in jobs):
            jobs = self._refuse_without_room(jobs)
        if self._broken is not None:
            for job in jobs:
                job.failure = self._broken
        elif jobs:
            self._group(jobs)

    def _group(self, jobs: Sequence[Job]) -> None:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for adds, some in groupby(jobs, key=attrgetter("adds")):
                if adds:
                    self._add(list(some))
                else:
                    for job in some:
                        job.result = job.function(connection, *job.args)
            connection.execute("COMMIT")
        except Exception as error:
            self._undo(jobs, error)

    def _add(self, jobs: Sequence[Job]) -> None:
        """Bring in the mail of many at once."""
        results = jobs[0].function(self.connection, [job.args for job in jobs])
        for job, result in zip(jobs, results, strict=True):
            job.result = result

    def _fail(self, error: StoreBroken) -> None:
        self._broken = error
        self._on_broken(error)

    def _undo(self, jobs: Sequence[Job], error: Exception) -> None:
        """Roll back, then do again what deserves it."""
        code = sqlite3.SQLITE_IOERR if isinstance(error, StoreBroken) else _code(error)
        if code not in _BROKEN:
            try:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            except sqlite3.Error as worse:
                error, code = worse, sqlite3.SQLITE_IOERR
        if code in _BROKEN:
            broken = (
                error if isinstance(error, StoreBroken) else StoreBroken(f"the database cannot be written: {error}")
            )
            self._fail(broken)
            for job in jobs:
                job.failure = self._broken
        elif code in _LATER:
            for job in jobs:
                job.failure = StoreFull(f"the database is not to be had now: {error}")
        elif code == sqlite3.SQLITE_FULL:
            self._make_do(jobs, error)
        elif len(jobs) == 1:
            jobs[0].failure = error
        else:
            self._in_halves(jobs)

    def _make_do(self, jobs: Sequence[Job], error: Exception) -> None:
        """The disk is full: free the reserve, for all but adds."""
        freed = self._room.free_reserve()
        hopeless = len(jobs) == 1 and not freed
        full = StoreFull(f"the disk is full: {error}")
        for job in jobs:
            if job.adds or hopeless:
                job.failure = full
        if not hopeless:
            self._in_halves([job for job in jobs if not job.adds])

    def _in_halves(self, jobs: Sequence[Job]) -> None:
        """Do a group that failed again as two: a bad job among n costs 2 log n commits, not n."""
        half = len(jobs) // 2
        for some in (jobs[:half], jobs[half:]):
            if self._broken is not None:
                for job in some:
                    job.failure = self._broken
            elif some:
                self._group(some)

    def _refuse_without_room(self, jobs: Sequence[Job]) -> Sequence[Job]:
        now = self._clock()
        if abs(now - self._looked) >= 1:
            self._looked = now
            self._room.look()
        if not self._room.lacking:
            return jobs
        for job in jobs:
            if job.adds:
                job.failure = StoreFull(self._room.lacking)
        return [job for job in jobs if not job.adds]


def give_up(connection: sqlite3.Connection, error: StoreBroken) -> None:
    """A job that ends all writing, when the disk failed elsewhere."""
    raise error


def make_room(folder: Path, least: int = FOR_START) -> None:
    """Give the reserve to a start on a full disk, so that what waits can leave. May raise OSError."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < least:
        (folder / "reserve").unlink(missing_ok=True)


class Room:
    """How much the disk has left, and the reserve file. `lacking` says what is missing for new mail, "" for nothing."""

    def __init__(self, folder: Path, min_free: int) -> None:
        self.lacking = ""
        self._folder = folder
        self._reserve = folder / "reserve"
        self._min_free = min_free

    def look(self) -> None:
        """Ask the file system, and make the reserve where it is missing and there is room for it."""
        try:
            status = os.statvfs(self._folder)
            free = status.f_bavail * status.f_frsize
            reserved = self._reserve.exists() and self._reserve.stat().st_size >= RESERVE
            if not reserved and free >= self._min_free + 2 * RESERVE:
                self._allocate()
                reserved = True
        except OSError as error:
            self.lacking = f"no room can be reserved: {error.strerror}"
            return
        if free < self._min_free:
            self.lacking = f"less than {self._min_free} octets are free"
        elif not reserved:
            self.lacking = "the disk was full and has little room yet"
        else:
            self.lacking = ""

    def free_reserve(self) -> bool:
        """Give the reserve to those who need it. Returns whether there was one."""
        self.lacking = "the disk is full"
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _allocate(self) -> None:
        descriptor = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def _code(error: Exception) -> int:
    """SQLite's primary code of an error, -1 for an error of another kind."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", -1) & 0xFF
    return -1
