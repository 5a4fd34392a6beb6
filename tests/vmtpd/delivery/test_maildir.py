"""Tests of the agent "maildir", in real folders."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.vmtpd.delivery.world import BODY, BadReader, LateReader, inline, lease
from vmtpd.delivery import maildir
from vmtpd.delivery.maildir import MaildirDelivery
from vmtpd.interfaces import IDelivery
from vmtpd.mail import Lease, Outcome, Route

TRACE = b"Return-Path: <ann@example.org>\nDelivered-To: bob@example.net\n"
TEXT = b"Received: from x by y\nFrom: Ann <ann@printer.lan>\n\ntext\n"


class Writing(SynchronousTestCase):
    """What stands in the folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "inbox"
        self.agent = MaildirDelivery("me.example", inline)

    def deliver(self, which: Lease, agent: MaildirDelivery | None = None) -> list[Outcome]:
        """Deliver into the folder."""
        route = Route("inbox", "maildir", "inbox", "a test", folder=str(self.folder))
        return self.successResultOf((agent or self.agent).deliver(which, route))

    def files(self, part: str = "new") -> list[Path]:
        """The files in a part of the folder."""
        return sorted((self.folder / part).iterdir())

    def test_interface(self) -> None:
        """The agent is an IDelivery, and has nothing to close."""
        verifyObject(IDelivery, self.agent)
        self.successResultOf(self.agent.close())

    def test_delivered(self) -> None:
        """A message lies in new with its trace on top and LF at the ends of lines; folders are made on demand, for us alone."""
        (outcome,) = self.deliver(lease("bob@example.net"))
        self.assertEqual((outcome.n, outcome.action, outcome.status), (1, "delivered", "2.0.0"))
        (file,) = self.files()
        self.assertEqual(file.read_bytes(), TRACE + TEXT)
        self.assertEqual((self.files("tmp"), self.files("cur")), ([], []))
        self.assertEqual((file.stat().st_mode & 0o777, self.folder.stat().st_mode & 0o077), (0o600, 0))

    def test_each_recipient(self) -> None:
        """Each recipient has a file of his own."""
        self.assertEqual(len(self.deliver(lease("a@x.example", "b@x.example"))), 2)
        self.assertEqual(len(self.files()), 2)

    def test_repeat(self) -> None:
        """A repeat after a crash takes the place of the first, and what a killed try left in tmp does not stop it."""
        self.deliver(lease("bob@example.net"))
        name = self.files()[0].name
        (self.folder / "tmp" / name).write_bytes(b"half a mess")
        self.deliver(lease("bob@example.net"))
        self.assertEqual([file.read_bytes() for file in self.files()], [TRACE + TEXT])

    def test_content_that_comes_later(self) -> None:
        """A content from the disk, larger than a block, is written whole."""
        body = BODY * 60000
        self.deliver(lease("bob@example.net", body=body, kind=LateReader))
        expected = b"Received: from x by y\n" + body.replace(b"\r\n", b"\n")
        self.assertEqual(self.files()[0].read_bytes(), TRACE + expected)

    @given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b""]), max_size=12))
    @settings(max_examples=150, deadline=None)
    def test_line_ends(self, pieces: list[bytes]) -> None:
        """However a content is cut into blocks, CRLF becomes LF and nothing else changes."""
        file = maildir._File(str(self.folder), "name", b"")
        for piece in pieces:
            file.write(piece)
        file.finish(b"")
        content = (self.folder / "new" / "name").read_bytes()
        self.assertEqual(content, b"".join(pieces).replace(b"\r\n", b"\n"))

    def test_injection(self) -> None:
        """A line end in an address makes no field."""
        self.deliver(lease("bob@example.net\nX-Evil: 1", sender="a\r\nX-Evil: 2"))
        self.assertNotIn(b"\nX-Evil", self.files()[0].read_bytes())

    def test_synced_before_said(self) -> None:
        """File and folder are synced, the file before it has its name in new."""
        calls: list[str] = []
        for name in ("fsync", "rename"):
            self.patch(os, name, self.spy(name, calls))
        self.deliver(lease("bob@example.net"))
        self.assertEqual(calls, ["fsync", "fsync", "fsync", "rename", "fsync"])

    def spy(self, name: str, calls: list[str]) -> Callable[..., Any]:
        """A system call that is noted."""
        call: Callable[..., Any] = getattr(os, name)

        def noted(*args: Any) -> Any:
            calls.append(name)
            return call(*args)

        return noted

    def test_disk_full(self) -> None:
        """A full disk delays with 4.3.1, and leaves nothing in the folder."""

        def full(f: Callable[..., Any], *args: Any) -> Deferred[Any]:
            if f.__name__ == "finish":
                return fail(OSError(errno.ENOSPC, "No space left on device"))
            return inline(f, *args)

        (outcome,) = self.deliver(lease("bob@example.net"), MaildirDelivery("me.example", full))
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.3.1", "host"))
        self.assertFalse(self.folder.exists() and (self.files("new") or self.files("tmp")))

    def test_bad_content(self) -> None:
        """A content that cannot be read delays, and leaves nothing in tmp."""
        (outcome,) = self.deliver(lease("bob@example.net", kind=BadReader))
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.3.0"))
        self.assertEqual((self.files("new"), self.files("tmp")), ([], []))

    def test_folder_that_cannot_be_made(self) -> None:
        """A file in the folder's place delays, and the text tells no path."""
        self.folder.parent.mkdir(parents=True)
        self.folder.write_bytes(b"")
        (outcome,) = self.deliver(lease("bob@example.net"))
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.3.0"))
        self.assertNotIn("inbox", outcome.reply)
