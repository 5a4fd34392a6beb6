"""The agent "maildir": writes a message into a Maildir folder, a file for each recipient.

The file is written in tmp, synced, renamed into new, and new is synced: whoever reads the folder sees whole messages, and
`delivered` is said of what survives a loss of power. Lines end with LF, as readers of Maildir expect. On top stand Return-Path
(RFC 5321 section 4.4) and Delivered-To. The name is made of the message's id: a repeat after a crash takes the place of the first.

*Failures*: never of the Deferred. A full disk or a folder that cannot be written delays: 4.3.1 and 4.3.0.
"""

from __future__ import annotations

import os
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from vmtp.address import printable
from vmtpd.delivery.content import Whole
from vmtpd.delivery.tls import Run
from vmtpd.delivery.trouble import of_disk, of_error
from vmtpd.interfaces import IDelivery
from vmtpd.mail import Addressee, Lease, Message, Outcome, Route

BLOCK = 1024 * 1024
"""Octets that are written in one turn of a thread."""


@implementer(IDelivery)
class MaildirDelivery:
    """`hostname` stands in the names of files; `run` calls functions in a thread."""

    log = Logger()

    def __init__(self, hostname: str, run: Run) -> None:
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072")
        self._run = run

    def deliver(self, lease: Lease, route: Route) -> Deferred[list[Outcome]]:
        return Deferred.fromCoroutine(self._deliver(lease, route))

    def close(self) -> Deferred[None]:
        return succeed(None)

    async def _deliver(self, lease: Lease, route: Route) -> list[Outcome]:
        return [await self._deliver_one(lease.message, each, route.folder) for each in lease.recipients]

    async def _deliver_one(self, message: Message, addressee: Addressee, folder: str) -> Outcome:
        try:
            await self._write(message, addressee, folder)
        except OSError as error:
            return of_disk(error).outcome(addressee.n)
        except Exception as error:
            self.log.failure("writing a message into a folder")
            return of_error(error).outcome(addressee.n)
        return Outcome(addressee.n, "delivered", "2.0.0", "written to the folder")

    async def _write(self, message: Message, addressee: Addressee, folder: str) -> None:
        name = f"{int(message.arrived)}.V{message.id:x}N{addressee.n}.{self._hostname}"
        trace = f"Return-Path: <{printable(message.sender)}>\nDelivered-To: {printable(addressee.address)}\n"
        file = _File(folder, name, trace.encode())
        reader = Whole(message)
        try:
            block = await _read(reader)
            while following := await _read(reader):
                await self._run(file.write, block)
                block = following
            await self._run(file.finish, block)
        except Exception:
            await self._run(file.discard)
            raise
        finally:
            reader.close()


async def _read(reader: Whole) -> bytes:
    block = reader.read(BLOCK)
    return block if isinstance(block, bytes) else await block


class _File:
    """A file on its way into a Maildir. Its methods block: they run in a thread."""

    def __init__(self, folder: str, name: str, trace: bytes) -> None:
        self._folder = folder
        self._name = name
        self._trace = trace
        self._temporary = os.path.join(folder, "tmp", name)
        self._descriptor = -1
        self._rest = b""

    def write(self, block: bytes) -> None:
        """Write a piece of the message, line ends as LF. A CR at its end waits for what follows."""
        if self._descriptor < 0:
            self._open()
        block = self._rest + block
        self._rest = b"\r" if block.endswith(b"\r") else b""
        _write_all(self._descriptor, block[: len(block) - len(self._rest)].replace(b"\r\n", b"\n"))

    def finish(self, block: bytes) -> None:
        """Write the last piece, and make the file durable under its name in new."""
        self.write(block)
        _write_all(self._descriptor, self._rest)
        os.fsync(self._descriptor)
        self._close()
        os.rename(self._temporary, os.path.join(self._folder, "new", self._name))
        _sync(os.path.join(self._folder, "new"))

    def discard(self) -> None:
        """Forget what was written."""
        self._close()
        with suppress(OSError):
            os.unlink(self._temporary)

    def _open(self) -> None:
        if not os.path.isdir(os.path.join(self._folder, "new")):
            os.makedirs(self._folder, 0o700, exist_ok=True)
            for part in ("tmp", "cur", "new"):
                os.makedirs(os.path.join(self._folder, part), 0o700, exist_ok=True)
            _sync(self._folder)
            _sync(os.path.dirname(os.path.abspath(self._folder)))
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)  # left by a try that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._temporary, flags, 0o600)
        _write_all(self._descriptor, self._trace)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _write_all(descriptor: int, octets: bytes) -> None:
    """os.write may be short."""
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
