"""Reports, as people and programs read them."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from vmtpd import bounce
from vmtpd.mail import Client, Message, Outcome
from vmtpd.store.content import Inline

MESSAGE = Message(
    1 << 40, Client("address", "192.0.2.7"), "ann@example.org", {}, 0.0, 432000.0, b"Received: x\r\n", Inline(b"", b"")
)
REFUSED = Outcome(1, "failed", "5.1.1", "550 5.1.1 no such user", "mx.example.net[192.0.2.1]:25", "TLSv1.3")


def made(kind: bounce.Kind, *cases: bounce.Case, header: bytes = b"Subject: hello\r\n") -> Any:
    """A report, read back by Python's own parser."""
    octets = bounce.report(
        kind, MESSAGE, header, cases, id=2 << 40, hostname="mx.example.org", to="ann@example.org", now=3600.0
    )
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


class ReportTests(SynchronousTestCase):
    """RFC 3464."""

    def test_failure(self) -> None:
        """A failure tells in words what was refused by whom, and in fields for programs."""
        message = made("failed", bounce.Case("friend@example.net", REFUSED))
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        text, status, header = message.get_payload()
        self.assertIn("<friend@example.net>", text.get_content())
        self.assertIn("mx.example.net[192.0.2.1]:25 said: 550 5.1.1 no such user", text.get_content())
        whole, recipient = status.get_payload()
        self.assertEqual(whole["Reporting-MTA"], "dns; mx.example.org")
        self.assertEqual(recipient["Final-Recipient"], "rfc822; friend@example.net")
        self.assertEqual((recipient["Action"], recipient["Status"]), ("failed", "5.1.1"))
        self.assertEqual(recipient["Remote-MTA"], "dns; mx.example.net")
        self.assertEqual(recipient["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")
        self.assertEqual(header.get_content_type(), "text/rfc822-headers")
        self.assertIn("Subject: hello", header.get_payload())

    def test_delay(self) -> None:
        """A delay says that nothing needs to be done, and until when it is tried."""
        message = made(
            "delayed", bounce.Case("friend@example.net", Outcome(1, "delayed", "4.4.1", "connection refused"))
        )
        text, status, _ = message.get_payload()
        self.assertIn("need not send it again", text.get_content())
        self.assertIn("given up on Tue, 6 Jan 1970", text.get_content())
        _, recipient = status.get_payload()
        self.assertEqual(recipient["Will-Retry-Until"], "Tue, 6 Jan 1970 00:00:00 +0000")
        self.assertEqual(recipient["Diagnostic-Code"], "x-vmtpd; connection refused")

    def test_hostile_reply(self) -> None:
        """What a remote host said cannot add fields or lines to a report."""
        outcome = REFUSED._replace(reply="550 no\r\nAction: delivered\r\n\r\n--" + "x" * 5000)
        message = made("failed", bounce.Case("friend@example.net", outcome))
        _, status, _ = message.get_payload()
        _, recipient = status.get_payload()
        self.assertEqual(recipient.get_all("Action"), ["failed"])
        self.assertTrue(all(len(line) < 998 for line in message.as_bytes().splitlines()))

    def test_bounded(self) -> None:
        """Thousands of recipients and a huge header do not make a huge report."""
        cases = [bounce.Case(f"u{n}@example.net", REFUSED) for n in range(5000)]
        message = made("failed", *cases, header=b"X: " + b"y" * 60 + b"\r\n" + b"X: y\r\n" * 100_000)
        self.assertLess(len(message.as_bytes()), 100_000)
        self.assertIn("and 4900 more", message.as_string())
