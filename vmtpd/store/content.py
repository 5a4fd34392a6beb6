"""Contents: the octets of messages where they lie, and on their way out.

A small content is in the row of its message. A larger one is a file below `content/`, in a folder named by the first two
letters of its name. A file belongs to its sink (sink.py) until a message that names it is committed; a file that neither a sink nor
a message names is swept away (retention.py). No path leaves this package.

*Failures*: a file that cannot be read, or is not as long as it was, fails its reader with OSError. A file that cannot be removed is
left to the next sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from vmtpd.interfaces import IContent, IReader, StoreBroken, StoreFull
from vmtpd.mail import INLINE
from vmtpd.store.files import Reading, Writing, remove
from vmtpd.store.threads import IWorker, Job

AHEAD = 256 * 1024
"""Octets that may wait to be written, and that are read ahead."""


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
        return FileReader(self._contents.path(self.file), self.size, self._contents.next_worker())


class Contents:
    """All contents below a folder, and the threads that write and read them.

    `token` gives random hexadecimal letters, enough that no two are alike. `on_broken` is called, in the reactor's
    thread, when the disk failed. `writing` makes the files of sinks.
    """

    def __init__(
        self,
        folder: Path,
        workers: Sequence[IWorker],
        token: Callable[[], str],
        on_broken: Callable[[StoreBroken], None],
        writing: Callable[[Path], Writing] = Writing,
    ) -> None:
        self.folder = folder
        self.token = token
        self.on_broken = on_broken
        self.writing = writing
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
            put_quietly(worker or self.next_worker(), remove, [self.path(file) for file in files])


@implementer(IReader)
class FileReader:
    """Reads a file through a content thread, at most AHEAD octets before they are asked for. One read at a time."""

    def __init__(self, path: Path, size: int, worker: IWorker) -> None:
        self._reading = Reading(path, size)
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
            raise RuntimeError("a read is under way")
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
            put_quietly(self._worker, self._reading.close)

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


def put_quietly(worker: IWorker, function: Callable[..., None], *args: object) -> None:
    """Do what may fail without harm: a file that was not removed is swept away later."""
    job = Job(function, args)
    job.done.addErrback(lambda failure: failure.trap(OSError, StoreFull) and None)
    worker.put(job)
