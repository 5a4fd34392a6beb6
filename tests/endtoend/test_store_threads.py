"""The store with its real threads, on a real disk, in the real reactor; and a process that is killed while it stores."""

from __future__ import annotations

import os
import signal
import sys
from hashlib import sha256
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from vmtp.envelope import Envelope, Recipient
from vmtpd import ids
from vmtpd.interfaces import IContent, StoreUnusable
from vmtpd.mail import Client, Outcome, QueueFilter, Settlement, Submission
from vmtpd.store.sqlite import SQLiteStore

LATER = 9e9
ROOT = Path(__file__).parent.parent.parent


async def submission(store: SQLiteStore, body: bytes, address: str = "ann@example.org") -> Submission:
    """A message on its way in, its sender paused when the store says so."""
    sink: Any = store.sink()
    for at in range(0, len(body), 30_000):
        await maybeDeferred(sink.write, body[at : at + 30_000])
    content: IContent = await maybeDeferred(sink.finish)
    envelope = Envelope("printer@example.org", (Recipient(address),))
    return Submission(store.newId(), Client("address", "192.0.2.1"), "lan", envelope, b"Received: x\r\n", content)


async def whole(content: IContent) -> bytes:
    """All octets of a content."""
    reader: Any = content.open()
    parts: list[bytes] = []
    while part := await maybeDeferred(reader.read, 50_000):
        parts.append(part)
    reader.close()
    return b"".join(parts)


class Threads(TestCase):
    """Four threads and a reactor."""

    timeout = 60

    def make(self, folder: str) -> SQLiteStore:
        """A store."""
        return SQLiteStore(folder, reactor, min_free=0)  # type: ignore[arg-type]

    async def test_many_at_once(self) -> None:
        """Hundreds of clients store small and large mail at once, all of it comes out as it went in, and answers come in our thread."""
        store = self.make(self.mktemp())
        await store.open()
        bodies = {f"user{n}@example.org": b"%d\r\n" % n * (30_000 if n % 20 == 0 else 5) for n in range(300)}
        threads = set()

        async def send(address: str, body: bytes) -> None:
            await store.add(await submission(store, body, address), False, LATER)
            threads.add(current_thread())

        await gatherResults([Deferred.fromCoroutine(send(address, body)) for address, body in bodies.items()])
        self.assertEqual(threads, {main_thread()})
        got = {}
        while leases := await store.lease(50, LATER):
            for lease in leases:
                got[lease.recipients[0].address] = await whole(lease.message.content)
                self.assertEqual(lease.message.content.digest, sha256(got[lease.recipients[0].address]).digest())
            outcome = Outcome(1, "relayed", "2.0.0", "250 2.0.0 ok")
            await store.settle([Settlement(lease.message.id, outcome) for lease in leases])
        self.assertEqual(got, bodies)
        self.assertEqual((await store.counts()).messages, 0)
        await store.close()

    async def test_close_finishes(self) -> None:
        """What was handed in before the store closes is kept, and answered."""
        folder = self.mktemp()
        store = self.make(folder)
        await store.open()
        waiting = [store.add(await submission(store, b"hello\r\n"), False, LATER) for _ in range(100)]
        closing = store.close()
        await gatherResults(waiting)
        await closing
        again = self.make(folder)
        await again.open()
        self.assertEqual((await again.counts()).queued, 100)
        await again.close()

    async def test_two_daemons(self) -> None:
        """A second store on the same folder is refused until the first is closed."""
        folder = self.mktemp()
        first, second = self.make(folder), self.make(folder)
        await first.open()
        with self.assertRaises(StoreUnusable):
            await second.open()
        await first.close()
        await second.open()
        await second.close()

    async def test_killed(self) -> None:
        """A process that is killed while it stores as fast as it can loses nothing that it acknowledged."""
        folder = self.mktemp()
        acknowledged: set[str] = set()
        for _ in range(3):
            child = Child(enough=len(acknowledged) + 200, acknowledged=acknowledged)
            reactor.spawnProcess(
                child,
                sys.executable,
                [sys.executable, "-m", "tests.endtoend.storing", folder],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            await child.ended
            store = self.make(folder)
            await store.open()
            kept: set[str] = set()
            after = 0
            while rows := await store.queue(QueueFilter(), 1000, after):
                kept.update(row["id"] for row in rows)
                after = ids.decode(rows[-1]["id"])
            self.assertGreaterEqual(len(acknowledged), 200)
            self.assertEqual(acknowledged - kept, set())
            await store.close()
        store = self.make(folder)
        await store.open()
        large = 0
        while leases := await store.lease(100, LATER):
            for lease in leases:
                body = await whole(lease.message.content)
                large += len(body) > 65536
                self.assertEqual(lease.message.content.digest, sha256(body).digest())
        self.assertGreater(large, 3)
        await store.close()


class Child(ProcessProtocol):
    """Kills the process when it has acknowledged enough."""

    def __init__(self, enough: int, acknowledged: set[str]) -> None:
        self.ended: Deferred[None] = Deferred()
        self._enough = enough
        self._acknowledged = acknowledged
        self._line = b""
        self._errors = b""

    def outReceived(self, data: bytes) -> None:
        """Ids, one a line."""
        *lines, self._line = (self._line + data).split(b"\n")
        self._acknowledged.update(line.decode() for line in lines)
        if len(self._acknowledged) >= self._enough and self.transport is not None:
            self.transport.signalProcess("KILL")

    def errReceived(self, data: bytes) -> None:
        """What it complained of."""
        self._errors += data

    def processEnded(self, reason: Failure) -> None:
        """It ended, by our hand or not."""
        if isinstance(reason.value, ProcessTerminated) and reason.value.signal == signal.SIGKILL:
            self.ended.callback(None)
        else:
            self.ended.errback(RuntimeError(self._errors.decode("utf-8", "replace")))
