"""Sinks: the octets of messages on their way in.

A content of up to INLINE octets stays in memory and goes into the row of its message; a larger one goes to a file, which is written and
synced by a content thread, so that 25 MiB never delay a commit. What waits for that thread is bounded: beyond AHEAD octets the
sender is paused.

*Failures*: StoreFull where there is no room, or no file may be opened; StoreBroken where the disk failed: then the whole store hears
of it. Whoever began a sink discards it after a failure.
"""

from __future__ import annotations

import errno
from hashlib import sha256

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtpd.interfaces import IContent, ISink, StoreBroken, StoreFull
from vmtpd.mail import INLINE
from vmtpd.store.content import AHEAD, Contents, Inline, put_quietly
from vmtpd.store.files import Writing
from vmtpd.store.threads import IWorker, Job

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@implementer(ISink)
class Sink:
    """Takes one content: in memory up to INLINE octets, beyond that into a file."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._held: list[bytes] = []
        self._octets = 0
        self._file = ""
        self._worker: IWorker | None = None
        self._writing: Writing | None = None
        self._waiting = 0
        self._room: Deferred[None] | None = None
        self._failed: Exception | None = None
        self._size = 0

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take octets. None: go on. A Deferred: pause the sender until it fires. It fails with StoreFull or StoreBroken."""
        if self._failed is not None:
            return fail(self._failed)
        self._held.append(data)
        self._octets += len(data)
        self._size += len(data)
        if self._octets <= INLINE:
            return None
        self._flush()
        if self._waiting <= AHEAD:
            return None
        if self._room is None:
            self._room = Deferred()
        return self._room

    def finish(self) -> IContent | Deferred[IContent]:
        """The content. What went to a file is durable (folder entry included) before this gives it."""
        if self._writing is None:
            body = b"".join(self._held)
            return Inline(body, sha256(body if body.endswith(b"\r\n") else body + b"\r\n").digest())
        self._flush()
        job = Job(self._writing.finish, ())
        job.done.addCallbacks(self._finished, self._trouble)
        self._put(job)
        return job.done

    def discard(self) -> None:
        """Forget what was written; more than once, or after finish() of a content that was never stored, does no harm."""
        self._held = []
        if self._writing is not None and self._worker is not None:
            # In the thread of the writes, behind them.
            put_quietly(self._worker, self._writing.close)
            self._contents.discard(self._file, self._worker)
        if self._failed is None:
            self._failed = StoreFull("this content was discarded")

    def _flush(self) -> None:
        """Hand what is held to the thread; the first time, begin a file."""
        if self._writing is None:
            self._file = self._contents.begin()
            self._worker = self._contents.next_worker()
            self._writing = self._contents.writing(self._contents.path(self._file))
        octets, self._octets = self._octets, 0
        data, self._held = self._held, []
        self._waiting += octets
        job = Job(self._writing.write, (data,))
        job.done.addCallbacks(self._written, self._trouble, callbackArgs=(octets,))
        job.done.addErrback(lambda failure: None)  # _failed says it to whoever asks next
        self._put(job)

    def _put(self, job: Job) -> None:
        if self._worker is not None:
            self._worker.put(job)

    def _written(self, result: object, octets: int) -> None:
        self._waiting -= octets
        if self._waiting <= AHEAD and self._room is not None:
            room, self._room = self._room, None
            room.callback(None)

    def _finished(self, digest: bytes) -> IContent:
        if self._failed is not None:
            raise self._failed
        return self._contents.stored(self._file, self._size, digest)

    def _trouble(self, failure: Failure) -> None:
        """An error of the disk, as the store's own."""
        if self._failed is None:
            self._failed = _judge(failure.value)
            if isinstance(self._failed, StoreBroken):
                self._contents.on_broken(self._failed)
        if self._room is not None:
            room, self._room = self._room, None
            room.errback(self._failed)
        raise self._failed


def _judge(error: BaseException | None) -> StoreFull | StoreBroken:
    if isinstance(error, StoreFull):
        return error
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StoreFull(f"no room for a content: {error.strerror}")
    return StoreBroken(f"a content could not be written: {error}")
