"""The store on SQLite keeps the contract, and what only a store on disk can keep."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.store.inline import InlineReactor, InlineWorkers
from tests.vmtpd.store_contract import ALL, DAY, StoreContract, settled
from vmtp.envelope import Envelope
from vmtpd.interfaces import IReader, StoreFull, StoreUnusable, TooMuch
from vmtpd.mail import Submission
from vmtpd.store import database
from vmtpd.store.sqlite import SQLiteStore


class OnDisk(SynchronousTestCase):
    """Makes stores in a folder of the test."""

    now = 0.0

    def openStore(self, folder: str = "", **rest: Any) -> SQLiteStore:
        """An open store, which the test's end closes."""
        self.folder = Path(folder or self.mktemp())
        self.reactor = InlineReactor()
        self.workers = InlineWorkers()
        rest.setdefault("min_free", 0)
        store = SQLiteStore(self.folder, self.reactor, wall=lambda: self.now, worker=self.workers, **rest)
        self.addCleanup(store.close)
        self.successResultOf(store.open())
        return store


class SQLite(StoreContract, OnDisk):
    """The contract."""

    def makeStore(self) -> SQLiteStore:
        """A store on disk."""
        return self.openStore()

    def reopen(self, **rest: Any) -> None:
        """Close and open."""
        self.successResultOf(self.store.close())
        self.store = self.openStore(str(self.folder), **rest)

    def query(self, sql: str) -> list[Any]:
        """Look into the database."""
        connection = sqlite3.connect(self.folder / database.FILE)
        self.addCleanup(connection.close)
        return connection.execute(sql).fetchall()

    def files(self) -> list[str]:
        """The content files."""
        return [name for _, _, names in os.walk(self.folder / "content") for name in names]

    # Begin and end

    def test_restart(self) -> None:
        """After a restart the queue is as it was, and what was under way is due again."""
        id = self.add(lease=True)
        before = self.store.id
        self.reopen()
        self.assertEqual(self.store.id, before)
        self.assertEqual(self.leased(), [(id, [1])])

    def test_ids_after_restart(self) -> None:
        """After a restart no id is given again, even if the clock was set back and nothing is stored."""
        last = self.store.newId()
        self.now -= DAY
        self.reopen()
        self.assertGreater(self.store.newId(), last)

    def test_ids_after_crash(self) -> None:
        """After a crash ids go on above all that are stored, even if the clock was set back."""
        stored = self.add()
        self.store._lock.release()
        self.now -= DAY
        self.store = self.openStore(str(self.folder))
        self.assertGreater(self.store.newId(), stored)

    def test_one_daemon(self) -> None:
        """A second daemon on the same folder is refused, and told who is there."""
        second = SQLiteStore(self.folder, InlineReactor(), worker=InlineWorkers())
        error = self.failureResultOf(second.open(), StoreUnusable).value
        self.assertIn(f"in use by another daemon (process {os.getpid()})", str(error))

    def test_newer_schema(self) -> None:
        """A queue that a newer daemon made is refused, and left as it is."""
        self.store.close()
        connection = sqlite3.connect(self.folder / database.FILE)
        connection.execute("UPDATE store SET value = 999 WHERE key = 'schema'")
        connection.commit()
        connection.close()
        older = SQLiteStore(self.folder, InlineReactor(), worker=InlineWorkers())
        error = self.failureResultOf(older.open(), StoreUnusable).value
        self.assertIn("made by a newer daemon (schema 999", str(error))

    def test_damaged(self) -> None:
        """A damaged queue is refused in one sentence, and the folder is free again for a better one."""
        self.store.close()
        (self.folder / database.FILE).write_bytes(b"not a database" * 1000)
        for name in ("-wal", "-shm"):
            (self.folder / (database.FILE + name)).unlink(missing_ok=True)
        broken = SQLiteStore(self.folder, InlineReactor(), worker=InlineWorkers())
        error = self.failureResultOf(broken.open(), StoreUnusable).value
        self.assertIn("cannot be used", str(error))
        self.assertNotIn("\n", str(error))
        (self.folder / database.FILE).unlink()
        self.store = self.openStore(str(self.folder))

    def test_folder_that_cannot_be(self) -> None:
        """A path that cannot be a folder is refused in one sentence."""
        refused = SQLiteStore("/dev/null/queue", InlineReactor(), worker=InlineWorkers())
        self.failureResultOf(refused.open(), StoreUnusable)

    def test_private(self) -> None:
        """Nobody else can read mail on disk, and the database gives room back."""
        self.add(body=b"x" * 100_000)
        for path in (self.folder, *self.folder.rglob("*")):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o077, 0, path)
        self.assertEqual(self.query("PRAGMA auto_vacuum"), [(2,)])
        self.assertEqual(self.query("PRAGMA journal_mode"), [("wal",)])

    def test_after_close(self) -> None:
        """A store that is closed says so, closes twice, and leaves no timer behind."""
        submission = self.submission()
        self.successResultOf(self.store.close())
        self.successResultOf(self.store.close())
        self.failureResultOf(self.store.add(submission, True, self.now), StoreFull)
        self.failureResultOf(self.store.counts(), StoreFull)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    # Groups

    def test_group(self) -> None:
        """All that wait share one commit."""
        commits: list[str] = []
        self.store._write_connection.set_trace_callback(
            lambda statement: commits.append(statement) if statement == "COMMIT" else None
        )
        submissions = [self.submission() for _ in range(10)]
        with self.workers.gather("store writer"):
            waiting = [self.store.add(each, True, self.now) for each in submissions]
            self.assertNoResult(waiting[0])
        self.assertEqual([self.get(each).id for each in waiting], [each.id for each in submissions])
        self.assertEqual(commits, ["COMMIT"])

    def test_one_bad_in_a_group(self) -> None:
        """A change that cannot be made fails alone; the others of its group are kept."""
        good, other = self.submission(), self.submission()
        nobody = Submission(self.store.newId(), good.client, "lan", Envelope("", ()), b"", good.content)
        with self.workers.gather("store writer"):
            waiting = [self.store.add(each, False, self.now) for each in (good, good, nobody, other)]
        self.get(waiting[0])
        self.failureResultOf(waiting[1], sqlite3.IntegrityError)
        self.failureResultOf(waiting[2], ValueError)
        self.get(waiting[3])
        self.assertEqual(self.get(self.store.counts()).messages, 2)
        self.assertEqual(self.leased(), [(good.id, [1]), (other.id, [1])])

    # Contents

    def test_small_and_large(self) -> None:
        """Small bodies are in the database, large ones in files, and both go with the last recipient."""
        small = self.add("ann@example.org", lease=True)
        large = self.add("ann@example.org", "bob@example.org", body=b"x" * 65537, lease=True)
        self.assertEqual(len(self.files()), 1)
        self.assertEqual(self.query(f"SELECT length(body) FROM message WHERE id = {small}"), [(24,)])
        self.get(self.store.settle([settled(small, 1, "relayed"), settled(large, 1, "relayed")]))
        self.assertEqual(len(self.files()), 1)
        self.get(self.store.settle([settled(large, 2, "relayed")]))
        self.assertEqual(self.files(), [])
        self.assertEqual(self.query("SELECT count(body), count(file) FROM message"), [(0, 0)])

    def test_deleted_file(self) -> None:
        """The file of a message that an operator deletes goes too."""
        self.add(body=b"x" * 100_000)
        self.get(self.store.delete(ALL, self.now))
        self.assertEqual(self.files(), [])

    def test_shared_file(self) -> None:
        """A content that two messages name stays until both are done."""
        one = self.submission(body=b"x" * 100_000)
        two = Submission(self.store.newId(), one.client, "lan", one.envelope, one.head, one.content)
        with self.workers.gather("store writer"):
            self.store.add(one, True, self.now)
            self.store.add(two, True, self.now)
        self.get(self.store.settle([settled(one.id, 1, "relayed")]))
        self.assertEqual(self.read(two.content), b"x" * 100_000)
        self.get(self.store.settle([settled(two.id, 1, "relayed")]))
        self.assertEqual(self.files(), [])

    def test_discarded_while_stored(self) -> None:
        """A client that goes away while its message is committed takes nothing back; a commit that fails leaves no file."""
        kept = self.submission(body=b"x" * 100_000)
        twice = Submission(kept.id, kept.client, "lan", kept.envelope, kept.head, self.content(b"y" * 100_000))
        for submission, rest in ((kept, 2), (twice, 1)):
            with self.workers.gather("store writer"):
                done = self.store.add(submission, True, self.now)
                content: Any = submission.content
                self.store._contents.discard(content.file)
                self.assertIn(content.file, self.files())
            done.addErrback(lambda failure: failure.trap(sqlite3.IntegrityError))
            self.assertEqual(len(self.files()), rest)
        self.assertEqual(self.read(kept.content), b"x" * 100_000)

    def test_sweep(self) -> None:
        """Files that a crash left behind are removed at start and every hour; those of messages and running sinks stay."""
        self.add(body=b"x" * 100_000)
        [kept] = self.files()
        orphan = self.folder / "content" / "ab" / ("ab" + "0" * 30)
        for again in (lambda: self.reopen(), lambda: self.reactor.advance(3600)):
            orphan.parent.mkdir(exist_ok=True)
            orphan.write_bytes(b"left behind")
            again()
            self.assertEqual(self.files(), [kept])
        sink = self.store.sink()
        sink.write(b"y" * 100_000)
        self.reactor.advance(3600)
        self.assertEqual(len(self.files()), 2)
        sink.discard()
        self.assertEqual(self.files(), [kept])

    def test_back_pressure(self) -> None:
        """A client that sends faster than the disk writes is paused until it has caught up."""
        sink = self.store.sink()
        sink._flush()  # begins a file, so that the thread of this sink is known
        with sink._worker.gather():
            self.assertIsNone(sink.write(b"x" * 200_000))
            paused = sink.write(b"x" * 100_000)
            self.assertNoResult(paused)
        self.assertIsNone(self.successResultOf(paused))
        self.assertIsNone(sink.write(b"x" * 10))
        self.assertEqual(self.successResultOf(sink.finish()).size, 300_010)
        sink.discard()

    def test_missing_file(self) -> None:
        """A content whose file is gone fails the read, not the store."""
        content = self.content(b"x" * 100_000)
        [path] = (self.folder / "content").rglob(content.file)
        path.unlink()
        reader = content.open()
        self.failureResultOf(reader.read(10), FileNotFoundError)
        self.failureResultOf(reader.read(10), FileNotFoundError)
        reader.close()

    def test_changed_file(self) -> None:
        """A content whose file is shorter or longer than it was never comes to its end, as if it were whole."""

        async def read(reader: IReader) -> None:
            while await maybeDeferred(reader.read, 40_000):
                pass

        for size in (0, 50_000, 99_999, 100_001):
            content = self.content(b"x" * 100_000)
            [path] = (self.folder / "content").rglob(content.file)
            os.truncate(path, size)
            with closing(content.open()) as reader:
                self.failureResultOf(read(reader), OSError)

    def test_lease_is_bounded(self) -> None:
        """A lease brings no more than some megabytes into memory at once; the rest comes with the next."""
        made = [self.add(body=b"x" * 60_000) for _ in range(150)]
        first = self.leased(1000)
        self.assertLess(len(first), 150)
        self.assertEqual([id for id, _ in first + self.leased(1000)], made)

    # Retention

    def test_old_history(self) -> None:
        """The story of a message is kept for a week after it was done; what is open stays."""
        done, still_open = self.add(lease=True, metadata={"k": "v"}), self.add()
        self.get(self.store.settle([settled(done, 1, "relayed")]))
        self.now += 7 * DAY - 1
        self.reactor.advance(60)
        self.assertIsNotNone(self.get(self.store.story(done)))
        self.now += 2
        self.reactor.advance(60)
        self.assertIsNone(self.get(self.store.story(done)))
        self.assertIsNotNone(self.get(self.store.story(still_open)))
        for table in ("message", "recipient", "event"):
            self.assertEqual(self.query(f"SELECT count(*) FROM {table}"), [(1,)])
        self.assertEqual(self.query("SELECT count(*) FROM metadata"), [(0,)])

    def test_long_history(self) -> None:
        """No more stories are kept than there is room for: the oldest go first."""
        self.reopen(history_messages=3)
        made = []
        for _ in range(5):
            self.now += 1
            made.append(self.add(lease=True))
            self.get(self.store.settle([settled(made[-1], 1, "relayed")]))
        self.reactor.advance(60)
        self.assertEqual([self.get(self.store.story(id)) is None for id in made], [True, True, False, False, False])

    def test_forgotten_ids_stay_given(self) -> None:
        """The id of a message that is forgotten is not given again, even if the clock was set back and the daemon crashed."""
        id = self.add(lease=True)
        self.get(self.store.settle([settled(id, 1, "relayed")]))
        self.now += 8 * DAY
        self.reactor.advance(60)
        self.store._lock.release()
        self.now = 0.0
        self.store = self.openStore(str(self.folder))
        self.assertGreater(self.store.newId(), id)

    def test_room_is_given_back(self) -> None:
        """A database that was large is small again when its messages are gone."""
        made = [self.add(lease=True, body=b"x" * 60_000) for _ in range(100)]
        self.store._write_connection.execute("PRAGMA wal_checkpoint")
        large = (self.folder / database.FILE).stat().st_size
        for id in made:
            self.get(self.store.settle([settled(id, 1, "relayed")]))
        self.reactor.advance(60)
        self.store._write_connection.execute("PRAGMA wal_checkpoint")
        self.assertLess((self.folder / database.FILE).stat().st_size, large - 1_000_000)

    # Questions

    def test_too_much(self) -> None:
        """A question that takes too long is given up, and the next is answered."""

        def endless(connection: sqlite3.Connection) -> object:
            return connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            ).fetchone()

        error = self.failureResultOf(self.store._ask(endless), TooMuch).value
        self.assertIn("ask for less", str(error))
        self.assertEqual(self.get(self.store.counts()).messages, 0)

    def test_questions_change_nothing(self) -> None:
        """Whoever asks cannot write."""
        writing = self.store._ask(lambda connection: connection.execute("DELETE FROM message"))
        self.assertIn("readonly", str(self.failureResultOf(writing, sqlite3.OperationalError).value))

    def test_large_answers_have_an_end(self) -> None:
        """However much is asked for, an answer has at most a thousand messages."""
        submissions = [self.submission() for _ in range(1010)]
        with self.workers.gather("store writer"):
            for each in submissions:
                self.store.add(each, False, self.now)
        self.assertEqual(len(self.get(self.store.queue(ALL, 10**9, 0))), 1000)
