"""The store on SQLite: the queue, its history and its contents in one folder, for one daemon.

Changes go to the writer's thread, which commits all that wait at once (writer.py); questions to the reader's, with
200 ms each; large contents to two threads of their own (content.py). What they do is in queue.py, hold.py, history.py, retention.py.
Every Deferred fires in the reactor's thread, that of a change after its commit is durable.

    store = SQLiteStore("/var/spool/vmtpd", reactor)
    yield store.open()
    yield store.add(submission, lease=True, expires=...)
    yield store.close()

*Failures*: `open` fails with StoreUnusable. A change fails with StoreFull (nothing was written, later may do) or StoreBroken (the disk
failed; `onBroken` is called once; whether the last group was kept is unknown). A question fails with TooMuch. An error of the caller,
such as an id that exists, fails that one change.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtpd.ids import Ids
from vmtpd.interfaces import IStore, StoreBroken, StoreUnusable
from vmtpd.mail import Counts, Destination, Lease, Message, QueueFilter, Row, Settlement, Submission, Wait
from vmtpd.store import arrivals, database, history, hold, outcome, queue, retention, totals
from vmtpd.store.arrivals import Arrival
from vmtpd.store.content import Contents, Filed
from vmtpd.store.hold import Slice
from vmtpd.store.sink import Sink
from vmtpd.store.threads import IWorker, Job, Reactor, Worker, WorkerFactory, perform_each
from vmtpd.store.writer import Writer, give_up, make_room

DAY = 86400.0

BETWEEN_PRUNES = 60.0
BETWEEN_SWEEPS = 3600.0

CLOSE_TIMEOUT = 20.0
"""Seconds that `close` waits for the threads; a dead disk may hold them for ever."""

WRITER = "store writer"
"""The name of the writer's thread, for those who make the threads."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@implementer(IStore)
class SQLiteStore:
    """A store in a folder. `id` is known once `open` fired."""

    _log = Logger()

    def __init__(
        self,
        path: str | Path,
        reactor: Reactor,
        *,
        wall: Callable[[], float] = time.time,
        min_free: int = 64 * 1024 * 1024,
        history: float = 7 * DAY,
        history_messages: int = 100_000,
        worker: WorkerFactory | None = None,
        connect: database.Connect = database.connect,
        token: Callable[[], str] = secrets.token_hex,
    ) -> None:
        """`wall` tells seconds since 1970; below `min_free` free octets no mail is taken; done messages are remembered for
        `history` seconds and up to `history_messages`. `worker` makes the threads, `connect` the connections, `token` file names.
        """
        self.id = ""
        self.onBroken: Callable[[Exception], None] = lambda error: None
        self._folder = Path(path)
        self._reactor = reactor
        self._wall = wall
        self._min_free = min_free
        self._history = history
        self._history_messages = history_messages
        self._make_worker: WorkerFactory = worker or partial(Worker, reactor)
        self._connect = connect
        self._token = token
        self._ids = Ids(wall)
        self._owner = 0
        self._open = False
        self._broken = False
        self._timers: dict[str, IDelayedCall] = {}

    # Begin and end

    def open(self) -> Deferred[None]:
        """Lock the folder, open the database, free the leases of dead daemons, begin to keep house. Fails with StoreUnusable."""
        opening = Job(self._open_all, ())
        opener = self._make_worker("store opening", perform_each)
        opener.put(opening)
        opener.stop(lambda: None)
        return opening.done.addCallback(self._opened)

    def _open_all(self) -> tuple[database.Lock, Writer, sqlite3.Connection, str, int]:
        lock = database.Lock(self._folder)
        try:
            make_room(self._folder)
            connection = database.open_writer(self._folder, self._connect)
            writer = Writer(connection, self._folder, self._wall, self._min_free, self._broke)
            begin = Job(_begin, (_new_store_id(),))
            writer.perform([begin])
            if begin.failure is not None:
                raise StoreUnusable(f"the queue in {self._folder} cannot be used: {begin.failure}")
            reader = database.open_reader(self._folder, self._connect)
        except BaseException:
            lock.release()
            raise
        return lock, writer, reader, *begin.result

    def _opened(self, parts: tuple[database.Lock, Writer, sqlite3.Connection, str, int]) -> None:
        self._lock, writer, reader, self.id, last = parts
        self._ids = Ids(self._wall, last=last)
        self._owner = self._ids.next()
        self._write_connection, self._read_connection = writer.connection, reader
        self._writer = self._make_worker(WRITER, writer.perform)
        self._reader = self._make_worker("store reader", perform_each)
        self._content_workers: list[IWorker] = [self._make_worker(f"store content {n}", perform_each) for n in (1, 2)]
        self._contents = Contents(
            self._folder / "content",
            self._content_workers,
            self._token,
            self._content_failed,
        )
        self._open = True
        self._keep_house("prune", self._prune, BETWEEN_PRUNES)
        self._keep_house("sweep", self._sweep, BETWEEN_SWEEPS)

    def close(self) -> Deferred[None]:
        """Finish what was asked for, end the threads, let go of the folder. Fires within CLOSE_TIMEOUT seconds."""
        if not self._open:
            return succeed(None)
        last_id = self._ids.next()
        keeping = Job(database.keep, ("last_id", last_id))
        keeping.done.addErrback(lambda failure: None)  # a broken disk: the next start takes the greatest that it finds
        self._writer.put(keeping)
        self._open = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        closed: Deferred[None] = Deferred()

        def end(result: object) -> None:
            if not closed.called:
                if timer.active():
                    timer.cancel()
                self._lock.release()
                closed.callback(None)

        timer = self._reactor.callLater(CLOSE_TIMEOUT, end, None)
        # The contents last: the writer's last group may leave them files to remove.
        databases = [self._writer.stop(self._write_connection.close), self._reader.stop(self._read_connection.close)]
        stopped = gatherResults(databases).addBoth(
            lambda result: gatherResults([worker.stop(lambda: None) for worker in self._content_workers])
        )
        stopped.addBoth(end)
        return closed

    def _content_failed(self, error: StoreBroken) -> None:
        """A disk that fails under a content fails the store; the writer says so in its turn."""
        self._write(give_up, error).addErrback(lambda failure: None)

    def _broke(self, error: StoreBroken) -> None:
        """Called in the writer's thread."""
        self._reactor.callFromThread(self._say_broken, error)

    def _say_broken(self, error: StoreBroken) -> None:
        if not self._broken:
            self._broken = True
            self.onBroken(error)

    # Mail in and out

    def newId(self) -> int:
        """A queue id, never given before, greater than all before."""
        return self._ids.next()

    def sink(self) -> Sink:
        """A place for one body."""
        return Sink(self._contents)

    def add(
        self,
        submission: Submission,
        lease: bool,
        expires: float,
        destinations: Sequence[str] = (),
        wait: Wait | None = None,
    ) -> Deferred[Message]:
        """Store a message with all its recipients: leased to this process, or queued and due at `not_before`."""
        owner = self._owner if lease else 0
        arrival = Arrival(submission, owner, self._wall(), expires, tuple(destinations), wait)
        done = self._write(arrivals.add, *arrival, adds=True)
        self._claim(done, (submission,))
        return done

    def lease(self, limit: int, now: float, avoid: Collection[str] = ()) -> Deferred[list[Lease]]:
        """Lease at most `limit` recipients that are due, the longest due first, grouped by message."""
        return self._write(queue.lease, self._owner, limit, now, tuple(avoid), self._contents.stored)

    def nextDue(self) -> Deferred[float | None]:
        """When the next queued recipient is due; None where nothing is queued."""
        return self._ask(queue.next_due)

    def settle(
        self, settlements: Sequence[Settlement], reports: Sequence[Submission] = (), expires: float = 0.0
    ) -> Deferred[None]:
        """Record outcomes, with the reports that they call for, in one commit. Reports are queued and due at once."""
        done = self._write(outcome.settle, tuple(settlements), tuple(reports), self._wall(), expires)
        self._claim(done, reports)
        return done.addCallback(self._contents.remove)

    def wake(self, destination: str, now: float, limit: int) -> Deferred[int]:
        """Make at most `limit` recipients that wait at a destination due now. Returns how many."""
        return self._write(queue.wake, destination, now, limit)

    def destinations(self) -> Deferred[list[Destination]]:
        """What is remembered of destinations."""
        return self._ask(queue.destinations)

    def remember(self, destination: Destination) -> Deferred[None]:
        """Remember the state of a destination."""
        return self._write(queue.remember, destination, self._wall())

    # The operator's

    def counts(self) -> Deferred[Counts]:
        """The queue in numbers."""
        return self._ask(totals.read)

    def queue(self, which: QueueFilter, limit: int, after: int) -> Deferred[list[Row]]:
        """Open messages with their open recipients, oldest first, with ids above `after`."""
        return self._ask(history.queue, which, limit, after)

    def story(self, id: int) -> Deferred[Row | None]:
        """All that is known of one message; None where the id is unknown."""
        return self._ask(history.story, id)

    def hold(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes held. Returns how many recipients."""
        return Deferred.fromCoroutine(self._each_slice(hold.hold, which, now))

    def unhold(self, which: QueueFilter, now: float) -> Deferred[int]:
        """held becomes queued and due now. Returns how many recipients."""
        return Deferred.fromCoroutine(self._each_slice(hold.unhold, which, now))

    def retry(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes due now. Returns how many recipients."""
        return Deferred.fromCoroutine(self._each_slice(hold.retry, which, now))

    def delete(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued and held become done, without a report, with an event `deleted`. Returns how many recipients."""
        return Deferred.fromCoroutine(self._each_slice(hold.delete, which, now))

    async def _each_slice(self, change: Callable[..., Slice], which: QueueFilter, now: float) -> int:
        total, after = 0, 0
        while True:
            done: Slice = await self._write(change, which, now, after)
            self._contents.remove(done.files)
            total += done.changed
            if done.after is None:
                return total
            after = done.after

    # Ways to the threads

    def _write(self, function: Callable[..., Any], *args: Any, adds: bool = False) -> Deferred[Any]:
        job = Job(function, args, adds)
        self._writer.put(job)
        return job.done

    def _ask(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        job = Job(database.ask, (self._read_connection, function, *args))
        self._reader.put(job)
        return job.done

    def _claim(self, done: Deferred[Any], submissions: Sequence[Submission]) -> None:
        """Keep the files of submissions from their sinks while the commit is under way, and for good when it ends well."""
        files = [each.content.file for each in submissions if isinstance(each.content, Filed)]
        if not files:
            return

        def ended(result: Any, kept: bool) -> Any:
            for file in files:
                self._contents.claimed(file, kept)
            return result

        for file in files:
            self._contents.claim(file)
        done.addCallbacks(ended, ended, callbackArgs=(True,), errbackArgs=(False,))

    # Keeping house

    def _keep_house(self, name: str, work: Callable[[], Any], interval: float) -> None:
        """Do a work now, and again an interval after it ended, as long as the store is open."""

        def again(result: object) -> None:
            if isinstance(result, Failure) and self._open:
                self._log.warn("the store could not {name}: {reason}", name=name, reason=result.getErrorMessage())
            if self._open:
                self._timers[name] = self._reactor.callLater(interval, self._keep_house, name, work, interval)

        self._timers.pop(name, None)
        Deferred.fromCoroutine(work()).addBoth(again)

    async def _prune(self) -> None:
        """Forget what is old, a few rows in a commit."""
        now = self._wall()
        while await self._write(retention.prune, now - self._history, self._history_messages):
            pass
        await self._write(retention.prune_destinations, now)
        while await self._write(retention.shrink):
            pass

    async def _sweep(self) -> None:
        """Remove content files that neither a message nor a sink names."""
        for number in range(256):
            folder = self._folder / "content" / f"{number:02x}"
            listing = Job(retention.list_folder, (folder,))
            self._contents.next_worker().put(listing)
            files = await listing.done
            # Sinks first, messages after: a file goes from the one to the other, never back.
            suspects = [file for file in files if not self._contents.loose(file)]
            if suspects and self._open:
                self._contents.remove(await self._ask(retention.without_message, suspects))
            if not self._open:
                break


def _begin(connection: sqlite3.Connection, new_id: str) -> tuple[str, int]:
    """Take a store up: free leases, give it its name once. Returns the name and the greatest id that was ever given."""
    queue.release_all(connection)
    if not database.value(connection, "store_id"):
        database.keep(connection, "store_id", new_id)
    (greatest,) = connection.execute("SELECT ifnull(max(id), 0) FROM message").fetchone()
    return str(database.value(connection, "store_id")), max(int(database.value(connection, "last_id", 0)), greatest)


def _new_store_id() -> str:
    return "".join(secrets.choice(_CROCKFORD) for _ in range(20))
