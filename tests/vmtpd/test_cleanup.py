"""What a message gets on its way in."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.message import Header, fields
from vmtpd.cleanup import Trace, head, looping, protocol

TRACE = Trace("printer.lan", "192.0.2.7", "mx.example.org", "ESMTP", "", "0akxdsycg0000")


def header(octets: bytes) -> Header:
    """A header that was seen."""
    found = Header()
    found.feed(octets)
    return found


class HeadTests(SynchronousTestCase):
    """The octets before the content."""

    def test_trace(self) -> None:
        """Our Received field says from whom, by whom, how, for whom and when."""
        made = head(
            TRACE,
            header(b"Date: x\r\nMessage-ID: y\r\nFrom: z\r\n\r\n"),
            "a@b.example",
            ["c@d.example"],
            0,
            complete=True,
        )
        self.assertEqual(
            made,
            b"Received: from printer.lan ([192.0.2.7])\r\n"
            b"\tby mx.example.org with ESMTP id 0akxdsycg0000\r\n"
            b"\tfor <c@d.example>;\r\n"
            b"\tThu, 1 Jan 1970 00:00:00 +0000\r\n",
        )

    def test_recipients_stay_secret(self) -> None:
        """With several recipients none is named, since each would see the others."""
        made = head(TRACE, header(b"\r\n"), "", ["c@d.example", "e@f.example"], 0, complete=False)
        self.assertNotIn(b"d.example", made)

    def test_what_is_missing(self) -> None:
        """Date, Message-ID and From are added where they are missing, and only for our own clients."""
        made = head(TRACE, header(b"subject: x\r\n\r\n"), "a@b.example", [], 0, complete=True)
        self.assertEqual([name for name, _ in fields(made)], [b"received", b"date", b"message-id", b"from"])
        made = head(TRACE, header(b"date: x\r\n\r\n"), "", [], 0, complete=True)
        self.assertEqual([name for name, _ in fields(made)], [b"received", b"message-id"])
        self.assertEqual(len(list(fields(head(TRACE, header(b"\r\n"), "a@b.example", [], 0, complete=False)))), 1)

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=300))
    def test_a_client_cannot_forge_fields(self, hello: str) -> None:
        """Whatever a client calls itself, our head is one Received field."""
        made = head(replace(TRACE, hello=hello), header(b"\r\n"), "", [], 0, complete=False)
        self.assertEqual([name for name, _ in fields(made)], [b"received"])
        self.assertTrue(made.endswith(b"+0000\r\n"))

    def test_protocol(self) -> None:
        """The protocol's name tells of TLS and login (RFC 3848)."""
        self.assertEqual(protocol(extended=True, tls=True, login=True), "ESMTPSA")
        self.assertEqual(protocol(extended=True, tls=False, login=False), "ESMTP")
        self.assertEqual(protocol(extended=False, tls=False, login=False), "SMTP")

    def test_loops(self) -> None:
        """A hundred hops are allowed; more are a loop. Text that looks like a trace does not count."""
        self.assertIsNone(looping(header(b"Received: x\r\n" * 100 + b"\r\n")))
        self.assertIsNotNone(looping(header(b"Received: x\r\n" * 101 + b"\r\n")))
        self.assertIsNone(looping(header(b"Subject: " + b"received: " * 200 + b"\r\n\r\n")))
