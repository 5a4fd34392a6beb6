"""Tests of the message under another author."""

from email import message_from_bytes, policy

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.delivery.world import Content, LateReader, Reader
from vmtpd.mail import Client, Message, Route
from vmtpd.rewrite import MAX_HEADER, header, rewrite

US = "office@example.org"


class Headers(SynchronousTestCase):
    """What becomes of a header."""

    def test_forms(self) -> None:
        """The author's name or address stays as the name, and the address as Reply-To."""
        for before, after, reply_to in (
            (b"Scanner <scan@printer.lan>", b'"Scanner"', b"Scanner <scan@printer.lan>"),
            (b"scan@printer.lan", b'"scan@printer.lan"', b"scan@printer.lan"),
            (b"<scan@printer.lan>", b'"scan@printer.lan"', b"<scan@printer.lan>"),
            (
                b'"Scanner, 2nd \\"floor\\"" <s@p.lan>',
                b'"Scanner, 2nd \\"floor\\""',
                b'"Scanner, 2nd \\"floor\\"" <s@p.lan>',
            ),
            (b"=?utf-8?q?J=C3=B6rg?= <j@p.lan>", b"=?utf-8?q?J=C3=B6rg?=", b"=?utf-8?q?J=C3=B6rg?= <j@p.lan>"),
            ("Jörg <j@p.lan>".encode(), '"Jörg"'.encode(), "Jörg <j@p.lan>".encode()),
            (b"A <a@p.lan>, B <b@p.lan>", b'"A <a@p.lan>, B"', b"A <a@p.lan>, B <b@p.lan>"),
            (b"root (Cron)", b'"root (Cron)"', b"root (Cron)"),
            (b'evil" <x@y.example>', b'"evil"', b'evil" <x@y.example>'),
        ):
            expected = b"From: " + after + b" <office@example.org>\r\nReply-To: " + reply_to + b"\r\nTo: x@y\r\n"
            self.assertEqual(header(b"From: " + before + b"\r\nTo: x@y\r\n", US), expected)

    def test_folds(self) -> None:
        """A folded field is read whole, and lives on in Reply-To with its folds."""
        self.assertEqual(
            header(b"X: 1\r\nFrom:\r\n Scanner\r\n\t<scan@printer.lan>\r\nTo: x@y\r\n", US),
            b'X: 1\r\nFrom: "Scanner" <office@example.org>\r\nReply-To:\r\n Scanner\r\n\t<scan@printer.lan>\r\nTo: x@y\r\n',
        )

    def test_reply_to_is_kept(self) -> None:
        """A Reply-To of the author's stays the only one, wherever it stands."""
        for before in (b"Reply-To: a@b\r\nFrom: c@d\r\n", b"From: c@d\r\nREPLY-TO: a@b\r\n"):
            after = header(before, US)
            self.assertEqual(after.lower().count(b"reply-to:"), 1)
            self.assertIn(b"a@b", after)

    def test_ours_already(self) -> None:
        """A header whose author is the route's address already is not touched."""
        for before in (b"From: Office <OFFICE@example.org>\r\n", b"From: office@example.org\r\nFrom: x@y\r\n"):
            self.assertEqual(header(before, US), before)

    def test_no_author(self) -> None:
        """A header without an author, or with an empty one, gets the route's address and no Reply-To."""
        self.assertEqual(header(b"To: x@y\r\n", US), b"To: x@y\r\nFrom: <office@example.org>\r\n")
        self.assertEqual(header(b"From:\r\nTo: x@y\r\n", US), b"From: <office@example.org>\r\nTo: x@y\r\n")
        self.assertEqual(header(b"", US), b"From: <office@example.org>\r\n")

    def test_two_authors(self) -> None:
        """Of several From fields one is left."""
        after = header(b"From: a@b\r\nTo: x@y\r\nFrom: c@d\r\n", US)
        self.assertEqual(after, b'From: "a@b" <office@example.org>\r\nReply-To: a@b\r\nTo: x@y\r\n')

    def test_long_names(self) -> None:
        """A very long name is cut at a whole character, so that no line is longer than 998 octets."""
        after = header(b"From: " + "ö".encode() * 450 + b" <a@b>\r\n", US).split(b"\r\nReply-To:")[0]
        self.assertTrue(all(len(line) < 998 for line in after.split(b"\r\n")))
        after.decode()

    @given(st.binary(max_size=80).filter(lambda octets: b"\n" not in octets and b"\r" not in octets))
    @settings(max_examples=500, deadline=None)
    def test_any_value(self, value: bytes) -> None:
        """Whatever an author field holds, the new one names the route's address and no other, and the other fields stay."""
        after = header(b"X: 1\r\nFrom: " + value + b"\r\nTo: x@y\r\n", US)
        self.assertTrue(after.startswith(b"X: 1\r\nFrom: ") and after.endswith(b"\r\nTo: x@y\r\n"))
        message = message_from_bytes(after + b"\r\n", policy=policy.compat32)
        self.assertEqual(len(message.get_all("From") or []), 1)
        field = after.split(b"\r\nReply-To:")[0]
        self.assertTrue(field.removesuffix(b"\r\nTo: x@y\r\n").endswith(b"<office@example.org>"))


class Whole(SynchronousTestCase):
    """A whole message."""

    def message(
        self, body: bytes, head: bytes = b"Received: x\r\n", kind: type[Reader] = Reader, sender: str = "a@b"
    ) -> Message:
        """A stored message."""
        return Message(7, Client("address", "192.0.2.1"), sender, {}, 0.0, 1.0, head, Content(body, kind))

    def read(self, message: Message, n: int = 65536) -> bytes:
        """The rewritten message, read in pieces of n."""
        _, begin, size = rewrite(message, Route("out", "smtp", "out", "a test", sender=US))
        reader = begin()
        octets = b""
        while True:
            piece = reader.read(n)
            piece = self.successResultOf(piece) if isinstance(piece, Deferred) else piece
            self.assertLessEqual(len(piece), n)
            if not piece:
                break
            octets += piece
        reader.close()
        self.assertLessEqual(len(octets), size)
        return octets

    def test_envelope(self) -> None:
        """The envelope sender becomes the route's, but the null one stays."""
        route = Route("out", "smtp", "out", "a test", sender=US)
        self.assertEqual(rewrite(self.message(b"x\r\n"), route)[0], US)
        self.assertEqual(rewrite(self.message(b"x\r\n", sender=""), route)[0], "")

    def test_body_is_not_touched(self) -> None:
        """The body is the same, octet by octet, also where it looks like a header, however it is read."""
        body = b"From: Scanner <s@p.lan>\r\nSubject: x\r\n\r\nFrom: y <y@z>\r\n\r\n\0\xff" + b"line\r\n" * 30000
        expected = (
            b'Received: x\r\nFrom: "Scanner" <office@example.org>\r\nReply-To: Scanner <s@p.lan>\r\nSubject: x\r\n'
            + body[body.index(b"\r\n\r\n") + 2 :]
        )
        for kind in (Reader, LateReader):
            for n in (1000, 65536):
                self.assertEqual(self.read(self.message(body, kind=kind), n), expected)

    def test_repeat(self) -> None:
        """A repeat has the same octets."""
        message = self.message(b"From: a <a@b>\r\n\r\nx\r\n")
        self.assertEqual(self.read(message), self.read(message, 1))

    def test_header_alone(self) -> None:
        """A message without a body, or without a header, comes whole."""
        self.assertEqual(
            self.read(self.message(b"Subject: x\r\n")), b"Received: x\r\nSubject: x\r\nFrom: <office@example.org>\r\n"
        )
        self.assertEqual(
            self.read(self.message(b"\r\ntext\r\n\r\nFrom: a@b\r\n", b"")),
            b"From: <office@example.org>\r\n\r\ntext\r\n\r\nFrom: a@b\r\n",
        )

    def test_huge_header(self) -> None:
        """A header above the bound is left as it is."""
        body = b"From: a@b\r\n" + b"X: y\r\n" * (MAX_HEADER // 6 + 1) + b"\r\ntext\r\n"
        self.assertEqual(self.read(self.message(body)), b"Received: x\r\n" + body)
