"""What the store does when the disk is full, slow to come back, or fails."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from tests.vmtpd.store.failing import Trouble, fail
from tests.vmtpd.store.inline import InlineReactor, InlineWorkers
from tests.vmtpd.store.test_sqlite import OnDisk
from tests.vmtpd.store_contract import NOW, Scenes, settled
from vmtpd.interfaces import StoreBroken, StoreFull, StoreUnusable
from vmtpd.store import database, writer
from vmtpd.store.files import Writing
from vmtpd.store.sqlite import SQLiteStore


class Full(Scenes, OnDisk):
    """No room."""

    now = NOW

    def reserve(self) -> bool:
        """Whether the reserve is there, with blocks of its own."""
        path = self.folder / "reserve"
        return path.exists() and path.stat().st_blocks * 512 >= writer.RESERVE

    def test_database_full(self) -> None:
        """On a full disk new mail is refused, what is stored stays and is delivered, and all is well when there is room again."""
        self.store = self.openStore()
        connection = self.store._write_connection
        first = self.add(lease=True)
        connection.execute("PRAGMA max_page_count = 40")
        stored, error = [], None
        for _ in range(100):
            done = self.store.add(self.submission(body=b"x" * 5000), True, self.now)
            result = done.result
            if isinstance(result, Failure):
                error = self.failureResultOf(done, StoreFull).value
                break
            stored.append(result.id)
        self.assertIn("full", str(error))
        self.assertGreater(len(stored), 5)
        self.failureResultOf(self.store.add(self.submission(), True, self.now), StoreFull)
        self.get(self.store.settle([settled(first, 1, "relayed")]))
        self.assertEqual(self.get(self.store.counts()).leased, len(stored))
        connection.execute("PRAGMA max_page_count = 100000")
        self.now += 1
        self.add()
        self.assertTrue(self.reserve())

    def test_reserve(self) -> None:
        """When the disk is full, the reserve is given up so that outcomes are kept; then it is made again."""
        trouble = Trouble(fail(sqlite3.SQLITE_FULL, "database or disk is full"), at=2)
        self.store = self.openStore(connect=trouble.connect)
        self.assertTrue(self.reserve())
        id = self.add(lease=True)
        submission = self.submission()
        trouble.armed = True
        with self.workers.gather("store writer"):
            adding = self.store.add(submission, True, self.now)
            settling = self.store.settle([settled(id, 1, "relayed")])
        self.get(settling)
        self.failureResultOf(adding, StoreFull)
        self.assertFalse(self.reserve())
        self.failureResultOf(self.store.add(submission, True, self.now), StoreFull)
        self.now += 1
        self.get(self.store.add(submission, True, self.now))
        self.assertTrue(self.reserve())

    def test_start_when_full(self) -> None:
        """A start on a full disk takes the reserve, since the log must grow before any mail leaves; otherwise it stays."""
        self.store = self.openStore()
        writer.make_room(self.folder)
        self.assertTrue(self.reserve())
        for _ in range(2):
            writer.make_room(self.folder, least=1 << 60)
            self.assertFalse(self.reserve())

    def test_no_room_to_start(self) -> None:
        """Where there is no room to open the queue, the operator is told to make some, and not that it is damaged."""
        trouble = Trouble(fail(sqlite3.SQLITE_FULL, "database or disk is full"), at=1)
        trouble.armed = True
        store = SQLiteStore(self.mktemp(), InlineReactor(), worker=InlineWorkers(), connect=trouble.connect)
        error = str(self.failureResultOf(store.open(), StoreUnusable).value)
        self.assertIn("make room on its disk", error)
        self.assertNotIn("backup", error)

    def test_no_room_for_outcomes(self) -> None:
        """Where even the reserve does not help, an outcome fails and may be given again."""
        trouble = Trouble(fail(sqlite3.SQLITE_FULL, "database or disk is full"))
        self.store = self.openStore(connect=trouble.connect)
        id = self.add(lease=True)
        (self.folder / "reserve").unlink()
        trouble.armed, trouble.at = True, 2
        self.failureResultOf(self.store.settle([settled(id, 1, "relayed")]), StoreFull)
        self.get(self.store.settle([settled(id, 1, "relayed")]))
        self.assertEqual(self.get(self.store.counts()).messages, 0)

    def test_min_free(self) -> None:
        """While the disk has less room than is asked for, new mail is refused before anything is written."""
        self.store = self.openStore(min_free=1 << 60)
        submission = self.submission()
        error = self.failureResultOf(self.store.add(submission, True, self.now), StoreFull).value
        self.assertIn("octets are free", str(error))
        self.assertIsNone(self.get(self.store.story(submission.id)))

    def test_locked_by_another(self) -> None:
        """While another program holds the database, new mail is refused for now, and nothing breaks."""
        broken: list[Exception] = []
        self.store = self.openStore(connect=lambda path: sqlite3.connect(path, 0, 0, None, False))
        self.store.onBroken = broken.append
        other = sqlite3.connect(self.folder / database.FILE, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        submission = self.submission()
        self.failureResultOf(self.store.add(submission, True, self.now), StoreFull)
        other.execute("ROLLBACK")
        self.get(self.store.add(submission, True, self.now))
        self.assertEqual(broken, [])


class Failing(Scenes, OnDisk):
    """The disk fails."""

    now = NOW

    def test_at_every_statement(self) -> None:
        """Wherever the disk fails, nobody is told that mail was kept, nothing is written after, and what was kept before stays."""
        at = 0
        while True:
            at += 1
            trouble = Trouble(fail(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"), at)
            broken: list[Exception] = []
            self.store = store = self.openStore(connect=trouble.connect)
            store.onBroken = broken.append
            id = self.add("ann@example.org", "bob@example.org", lease=True)
            submissions = [self.submission(), self.submission("ann@example.org", "bob@example.org")]
            trouble.armed = True
            with self.workers.gather("store writer"):
                group: list[Deferred[Any]] = [
                    store.settle([settled(id, 1, "relayed"), settled(id, 2, "delayed", due=self.now + 5)]),
                    *(store.add(each, True, self.now) for each in submissions),
                ]
            trouble.armed = False
            if len(trouble.log) < at:
                self.assertEqual(trouble.log[-1], "COMMIT")
                for done in group:
                    self.get(done)
                self.assertGreater(at, 10)
                break
            for done in group:
                self.failureResultOf(done, StoreBroken)
            self.assertEqual(len(broken), 1)
            self.failureResultOf(store.add(self.submission(), True, self.now), StoreBroken)
            self.failureResultOf(store.hold(self.everything, self.now), StoreBroken)
            self.assertEqual(len(broken), 1)
            self.successResultOf(store.close())
            self.store = self.openStore(str(self.folder))
            self.assertEqual(self.leased(), [(id, [1, 2])])

    def test_rollback_fails(self) -> None:
        """A transaction that cannot be undone breaks the store."""
        trouble = Trouble(fail(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error"))
        self.store = self.openStore(connect=trouble.connect)
        submission = self.submission()
        self.get(self.store.add(submission, True, self.now))
        trouble.armed, trouble.at = True, 3  # BEGIN, INSERT (of an id that exists), ROLLBACK
        self.failureResultOf(self.store.add(submission, True, self.now), StoreBroken)
        self.assertEqual(trouble.log[-1], "ROLLBACK")


class FailingFile(Writing):
    """A file that fails at one of its steps."""

    def __init__(self, path: Path, step: str, code: int) -> None:
        super().__init__(path)
        self._step = step
        self._code = code
        self._writes = 0

    def write(self, chunks: Sequence[bytes]) -> None:
        """Fail at the first or the second write."""
        self._writes += 1
        if self._step == f"write {self._writes}":
            raise OSError(self._code, os.strerror(self._code))
        super().write(chunks)

    def finish(self) -> bytes:
        """Fail at the fsync."""
        if self._step == "fsync":
            raise OSError(self._code, os.strerror(self._code))
        return super().finish()


class FailingContents(Scenes, OnDisk):
    """Large contents on a bad disk."""

    now = NOW

    def attempt(self, step: str, code: int) -> tuple[SQLiteStore, list[Exception], Failure]:
        """Write a large content, one step of which fails."""
        store = self.store = self.openStore()
        broken: list[Exception] = []
        store.onBroken = broken.append
        store._contents.writing = lambda path: FailingFile(path, step, code)
        sink = store.sink()
        for _ in range(3):
            result = sink.write(b"x" * 70_000)
            if result is not None:
                self.failureResultOf(result, StoreFull, StoreBroken)
        failure = self.failureResultOf(maybeDeferred(sink.finish), StoreFull, StoreBroken)
        self.failureResultOf(maybeDeferred(sink.write, b"more"), StoreFull, StoreBroken)
        sink.discard()
        self.assertEqual([path for path in (self.folder / "content").rglob("*") if path.is_file()], [])
        return store, broken, failure

    def test_no_room(self) -> None:
        """A large message for which there is no room is refused, leaves nothing behind, and the next may do."""
        for step in ("write 1", "write 2", "fsync"):
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
                store, broken, failure = self.attempt(step, code)
                failure.trap(StoreFull)
                self.assertEqual(broken, [])
                store._contents.writing = Writing
                self.add(body=b"x" * 70_000)

    def test_disk_fails(self) -> None:
        """A disk that fails under a large message fails the whole store: no more mail is taken."""
        for step in ("write 1", "write 2", "fsync"):
            store, broken, failure = self.attempt(step, errno.EIO)
            failure.trap(StoreBroken)
            self.assertEqual(len(broken), 1)
            self.failureResultOf(store.add(self.submission(), True, self.now), StoreBroken)
