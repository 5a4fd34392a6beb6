"""Files of contents, as a content thread sees them: written once, made durable, read, removed. Each belongs to one thread at a time.

*Failures*: OSError, which sink.py and content.py judge.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path


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


class Reading:
    """A file of `size` octets while it is read, used by one content thread alone."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._left = size
        self._descriptor = -1
        self._over = False

    def read(self, n: int) -> bytes:
        """The next octets, b"" at the end or after close. Fails at the end of a file that is not as long as it was."""
        if self._over:
            return b""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.read(self._descriptor, n)
        self._left -= len(data)
        if self._left < 0 or (self._left and not data):
            # Sent as it is, it would arrive as if it were whole.
            raise OSError(errno.EIO, "the content was cut or changed on the disk")
        return data

    def close(self) -> None:
        """Close, and read no more."""
        self._over = True
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def remove(paths: Sequence[Path]) -> None:
    """Remove files; one that is gone already does no harm."""
    for path in paths:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable. May raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
