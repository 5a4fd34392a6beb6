"""Tests of the judge of troubles."""

import errno

from twisted.internet import error as net
from twisted.trial.unittest import SynchronousTestCase

from vmtp.client.engine import Answer
from vmtp.errors import (
    AddressError,
    ConnectionClosed,
    ExtensionUnavailable,
    InvalidInput,
    MalformedReply,
    RemoteError,
    TimedOut,
    TLSFailed,
    UnexpectedReply,
)
from vmtp.replies import Reply
from vmtpd.delivery.trouble import Trouble, of_answer, of_disk, of_error, too_many
from vmtpd.interfaces import NoSuchDomain, ResolverTrouble


def judged(trouble: Trouble) -> tuple[str, str, str]:
    """A judgement without its text."""
    return trouble.scope, trouble.action, trouble.status


class Replies(SynchronousTestCase):
    """What a peer says."""

    def test_table(self) -> None:
        """Operation and code decide on scope, action and status."""
        for operation, code, enhanced, expected in (
            ("greeting", 554, "", ("host", "delayed", "4.0.0")),
            ("EHLO", 550, "5.7.1", ("host", "delayed", "4.7.1")),
            ("STARTTLS", 454, "4.7.0", ("host", "delayed", "4.7.0")),
            ("AUTH", 535, "5.7.8", ("host", "delayed", "4.7.8")),
            ("AUTH", 454, "4.7.0", ("host", "delayed", "4.7.0")),
            ("RSET", 500, "", ("host", "delayed", "4.0.0")),
            ("MAIL", 421, "4.3.2", ("host", "delayed", "4.3.2")),
            ("RCPT", 421, "", ("host", "delayed", "4.0.0")),
            ("body", 421, "", ("host", "delayed", "4.0.0")),
            ("MAIL", 530, "5.7.0", ("host", "delayed", "4.7.0")),
            ("MAIL", 451, "4.3.0", ("message", "delayed", "4.3.0")),
            ("MAIL", 552, "5.3.4", ("message", "failed", "5.3.4")),
            ("RCPT", 450, "4.2.1", ("recipient", "delayed", "4.2.1")),
            ("RCPT", 550, "5.1.1", ("recipient", "failed", "5.1.1")),
            ("RCPT", 552, "5.2.2", ("recipient", "failed", "5.2.2")),
            ("RCPT", 552, "", ("recipient", "delayed", "4.5.3")),
            ("RCPT", 452, "4.5.3", ("recipient", "delayed", "4.5.3")),
            ("DATA", 554, "", ("message", "failed", "5.0.0")),
            ("body", 451, "", ("message", "delayed", "4.0.0")),
            ("body", 552, "5.3.4", ("message", "failed", "5.3.4")),
        ):
            answer = Answer(operation, Reply(code, enhanced, "words"))
            self.assertEqual(judged(of_answer(answer)), expected, answer)

    def test_words(self) -> None:
        """The operator reads the peer's own words."""
        self.assertEqual(of_answer(Answer("RCPT", Reply(550, "5.1.1", "no\nsuch"))).text, "550 5.1.1 no such")

    def test_too_many(self) -> None:
        """A full mailbox is not too many recipients."""
        self.assertTrue(too_many(Answer("RCPT", Reply(452, "4.5.3", "x"))))
        self.assertFalse(too_many(Answer("RCPT", Reply(452, "4.2.2", "x"))))
        self.assertFalse(too_many(Answer("MAIL", Reply(452, "", "x"))))

    def test_only_settled_mail_fails(self) -> None:
        """No refusal between us and the host fails mail, whatever its code."""
        for operation in ("greeting", "EHLO", "HELO", "STARTTLS", "AUTH", "RSET", ""):
            for code in range(400, 600):
                self.assertEqual(of_answer(Answer(operation, Reply(code, "", ""))).action, "delayed")

    def test_outcome(self) -> None:
        """A judgement becomes an outcome that tells the scope."""
        outcome = Trouble("host", "delayed", "4.4.1", "refused").outcome(3, "h[::1]:25", "TLSv1.3")
        self.assertEqual(outcome, (3, "delayed", "4.4.1", "refused", "h[::1]:25", "TLSv1.3", "host"))


class Errors(SynchronousTestCase):
    """What has no reply."""

    def test_table(self) -> None:
        """The kind of an error decides."""
        for error, expected in (
            (net.ConnectionRefusedError(errno.ECONNREFUSED), ("host", "delayed", "4.4.1")),
            (net.NoRouteError(errno.ENETUNREACH), ("host", "delayed", "4.4.1")),
            (net.TimeoutError(), ("host", "delayed", "4.4.2")),
            (net.TCPTimedOutError(errno.ETIMEDOUT), ("host", "delayed", "4.4.2")),
            (net.DNSLookupError(), ("host", "delayed", "4.4.3")),
            (NoSuchDomain("no"), ("host", "delayed", "4.4.3")),
            (ResolverTrouble("later"), ("host", "delayed", "4.4.3")),
            (TLSFailed("bad certificate"), ("host", "delayed", "4.7.5")),
            (ExtensionUnavailable("STARTTLS"), ("host", "delayed", "4.7.4")),
            (ConnectionClosed("refused", "connect"), ("host", "delayed", "4.4.1")),
            (ConnectionClosed("gone", "EHLO"), ("host", "delayed", "4.4.2")),
            (TimedOut("slow", "MAIL"), ("host", "delayed", "4.4.2")),
            (MalformedReply("no code"), ("host", "delayed", "4.5.2")),
            (RemoteError("odd"), ("host", "delayed", "4.5.0")),
            (ConnectionClosed("gone", "body", ambiguous=True), ("message", "delayed", "4.4.2")),
            (UnexpectedReply(Reply(552, "5.3.4", "no"), "body"), ("message", "failed", "5.3.4")),
            (UnexpectedReply(Reply(554, "", "no"), "greeting"), ("host", "delayed", "4.0.0")),
            (UnexpectedReply(Reply(250, "", "eh"), "DATA"), ("host", "delayed", "4.5.0")),
            (InvalidInput("in clear", "AUTH"), ("host", "delayed", "4.7.0")),
            (InvalidInput("bare LF", "body"), ("message", "failed", "5.6.0")),
            (InvalidInput("no address", "RCPT"), ("recipient", "failed", "5.1.3")),
            (AddressError("no domain"), ("recipient", "failed", "5.1.3")),
            (FileNotFoundError(errno.ENOENT, "No such file", "/etc/secret"), ("host", "delayed", "4.3.5")),
            (ZeroDivisionError(), ("host", "delayed", "4.3.0")),
        ):
            self.assertEqual(judged(of_error(error)), expected, repr(error))

    def test_texts(self) -> None:
        """A text says where it happened, whether the message may have arrived, and no path."""
        self.assertEqual(of_error(ConnectionClosed("gone", "EHLO")).text, "gone at EHLO")
        self.assertIn("may have arrived", of_error(TimedOut("slow", "body", ambiguous=True)).text)
        self.assertEqual(of_error(net.ConnectionRefusedError(errno.ECONNREFUSED)).text, "connection refused")
        self.assertNotIn("secret", of_error(FileNotFoundError(errno.ENOENT, "No such file", "/etc/secret")).text)

    def test_disk(self) -> None:
        """A full disk is 4.3.1, any other trouble with it 4.3.0."""
        self.assertEqual(judged(of_disk(OSError(errno.ENOSPC, "full"))), ("host", "delayed", "4.3.1"))
        self.assertEqual(judged(of_disk(OSError(errno.EDQUOT, "full"))), ("host", "delayed", "4.3.1"))
        self.assertEqual(judged(of_disk(PermissionError(errno.EACCES, "denied"))), ("message", "delayed", "4.3.0"))
