"""Contents: the octets of messages, on their way in and on their way out.

A small content stays in memory and goes into the row of its message. A larger one becomes a file below `content/`, in a folder named
by the first two letters of its name, written and synced by two threads so that it never delays a commit. A file belongs
to its sink until a message that names it is committed; a file that neither a sink nor a message names is swept away (retention.py).
No path leaves this package.

*Failures*: StoreFull where there is no room, or no file may be opened; StoreBroken where the disk failed: then `on_broken` hears of it
too. A file that cannot be read fails its reader with OSError.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from vmtpd.interfaces import IContent, IReader, ISink, StoreBroken, StoreFull
from vmtpd.store.threads import IWorker, Job

INLINE = 64 * 1024
"""Octets of a content that stays in memory; also what is handed to a thread at once."""

AHEAD = 256 * 1024
"""Octets that may wait to be written, and that are read ahead."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@implementer(IContent)
class Inline:
    """A content in memory, as received; the digest is that of IContent."""

    __slots__ = ("body", "digest")
    file = None

    def __init__(self, body: bytes, digest: bytes) -> None:
        self.body = body
        self.digest = digest

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.body)

    def open(self) -> InlineReader:
        """Begin to read."""
        return InlineReader(self.body)


@implementer(IReader)
class InlineReader:
    """Reads a content in memory; every read is answered at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def read(self, n: int) -> bytes:
        """Up to n octets, b"" at the end."""
        data = self._body[self._at : self._at + n]
        self._at += len(data)
        return data

    def close(self) -> None:
        """Let go of it."""
        self._body = b""


@implementer(IContent)
class Filed:
    """A content in a file."""

    __slots__ = ("_contents", "digest", "file", "size")
    body = None

    def __init__(self, contents: Contents, file: str, size: int, digest: bytes) -> None:
        self._contents = contents
        self.file = file
        self.size = size
        self.digest = digest

    def open(self) -> FileReader:
        """Begin to read."""
        return FileReader(self._contents.path(self.file), self._contents.next_worker())


class Contents:
    """All contents below a folder, and the threads that write and read them.

    `token` gives random hexadecimal letters, enough that no two are alike. `on_broken` is called, in the reactor's
    thread, when the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        workers: Sequence[IWorker],
        token: Callable[[], str],
        on_broken: Callable[[StoreBroken], None],
    ) -> None:
        self.folder = folder
        self.token = token
        self.on_broken = on_broken
        self._workers = cycle(workers)
        # Files that no committed message names yet: how many commits under way name each.
        self._loose: Counter[str] = Counter()
        self._unwanted: set[str] = set()

    def next_worker(self) -> IWorker:
        """The thread for the next sink or reader."""
        return next(self._workers)

    def path(self, file: str) -> Path:
        """Where a file lies."""
        return self.folder / file[:2] / file

    def stored(self, file: str, size: int, digest: bytes) -> Filed:
        """The content of a message that is in the store."""
        return Filed(self, file, size, digest)

    def begin(self) -> str:
        """The name of a new file, which is safe from the sweep."""
        file = self.token()
        self._loose[file] = 0
        return file

    def loose(self, file: str) -> bool:
        """Whether a file is a sink's, so that no message needs to name it."""
        return file in self._loose

    def claim(self, file: str) -> None:
        """A commit that names this file is under way: it can't be discarded before that ends."""
        if file in self._loose:
            self._loose[file] += 1

    def claimed(self, file: str, kept: bool) -> None:
        """That commit ended; `kept` tells whether the file is the store's now."""
        if file not in self._loose:
            return
        self._loose[file] -= 1
        if kept:
            del self._loose[file]
            self._unwanted.discard(file)
        elif not self._loose[file] and file in self._unwanted:
            self.discard(file)

    def discard(self, file: str, worker: IWorker | None = None) -> None:
        """Remove a sink's file, unless it is the store's, or will be when a commit ends well."""
        if file not in self._loose:
            return
        if self._loose[file]:
            self._unwanted.add(file)
            return
        del self._loose[file]
        self._unwanted.discard(file)
        self.remove([file], worker)

    def remove(self, files: Sequence[str], worker: IWorker | None = None) -> None:
        """Remove files that no message names any more, in this thread where it matters. What fails is left to the sweep."""
        if files:
            _put_quietly(worker or self.next_worker(), _remove, [self.path(file) for file in files])


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
            _put_quietly(self._worker, self._writing.close)
            self._contents.discard(self._file, self._worker)
        if self._failed is None:
            self._failed = StoreFull("this content was discarded")

    def _flush(self) -> None:
        """Hand what is held to the thread; the first time, begin a file."""
        if self._writing is None:
            self._file = self._contents.begin()
            self._worker = self._contents.next_worker()
            self._writing = Writing(self._contents.path(self._file))
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

    def _trouble(self, failure: Any) -> Any:
        """An error of the disk, as the store's own."""
        if self._failed is None:
            error: Exception = failure.value
            self._failed = _judge(error) if isinstance(error, OSError) else error
            if isinstance(self._failed, StoreBroken):
                self._contents.on_broken(self._failed)
        if self._room is not None:
            room, self._room = self._room, None
            room.errback(self._failed)
        raise self._failed


class Writing:
    """A file while it is written, used by one content thread alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = sha256()
        self._tail = b""
        self._descriptor = -1
        self._over = False

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append."""
        if self._over:
            return
        if self._descriptor < 0:
            self._begin()
        data = b"".join(chunks)
        self._digest.update(data)
        self._tail = (self._tail + data[-2:])[-2:]
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def finish(self) -> bytes:
        """Make it durable: the file, then the names that lead to it. Returns the digest."""
        if self._tail != b"\r\n":
            self._digest.update(b"\r\n")
        os.fsync(self._descriptor)
        self.close()
        sync_folder(self._path.parent)
        sync_folder(self._path.parent.parent)
        return self._digest.digest()

    def close(self) -> None:
        """Close, and write no more."""
        self._over = True
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _begin(self) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


@implementer(IReader)
class FileReader:
    """Reads a file through a content thread, at most AHEAD octets before they are asked for. One read at a time."""

    def __init__(self, path: Path, worker: IWorker) -> None:
        self._reading = Reading(path)
        self._worker = worker
        self._ahead = bytearray()
        self._end = False
        self._closed = False
        self._busy = False
        self._failed: Exception | None = None
        self._asked: tuple[int, Deferred[bytes]] | None = None

    def read(self, n: int) -> bytes | Deferred[bytes]:
        """Up to n octets, b"" at the end. May fail with OSError."""
        if self._asked is not None:
            raise RuntimeError("one read at a time")
        if self._ahead or self._end:
            return self._take(n)
        if self._failed is not None:
            return fail(self._failed)
        if self._closed:
            return succeed(b"")
        waiting: Deferred[bytes] = Deferred()
        self._asked = (n, waiting)
        self._fetch()
        return waiting

    def close(self) -> None:
        """Let go of it; more than once does no harm."""
        if not self._closed:
            self._closed = True
            self._ahead.clear()
            _put_quietly(self._worker, self._reading.close)

    def _take(self, n: int) -> bytes:
        data = bytes(self._ahead[:n])
        del self._ahead[:n]
        if len(self._ahead) <= AHEAD - INLINE:
            self._fetch()
        return data

    def _fetch(self) -> None:
        if self._busy or self._end or self._closed or self._failed is not None:
            return
        self._busy = True
        job = Job(self._reading.read, (AHEAD - len(self._ahead),))
        job.done.addCallbacks(self._fetched, self._trouble)
        self._worker.put(job)

    def _fetched(self, data: bytes) -> None:
        self._busy = False
        self._end = not data
        if not self._closed:
            self._ahead += data
        if self._asked is not None:
            (n, waiting), self._asked = self._asked, None
            waiting.callback(self._take(n))

    def _trouble(self, failure: Any) -> None:
        self._busy = False
        self._failed = failure.value
        if self._asked is not None:
            (_, waiting), self._asked = self._asked, None
            waiting.errback(failure)


class Reading:
    """A file while it is read, used by one content thread alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._over = False

    def read(self, n: int) -> bytes:
        """The next octets, b"" at the end or after close."""
        if self._over:
            return b""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.read(self._descriptor, n)

    def close(self) -> None:
        """Close, and read no more."""
        self._over = True
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable. May raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_quietly(worker: IWorker, function: Callable[..., None], *args: object) -> None:
    """Do what may fail without harm: a file not closed or not removed is swept away at the next start."""
    job = Job(function, args)
    job.done.addErrback(lambda failure: failure.trap(OSError) and None)
    worker.put(job)


def _judge(error: OSError) -> StoreFull | StoreBroken:
    if error.errno in _NO_ROOM:
        return StoreFull(f"no room for a content: {error.strerror}")
    return StoreBroken(f"a content could not be written: {error.strerror}")


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
