"""Command lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp import commands
from vmtp.errors import CommandError


class CommandTests(SynchronousTestCase):
    """Verb, path, parameters."""

    def test_verb(self) -> None:
        """The verb is told in capitals, and a line that begins with none has none."""
        self.assertEqual(commands.read(b"mail FROM:<>"), (b"MAIL", b"FROM:<>"))
        self.assertEqual(commands.read(b"QUIT  "), (b"QUIT", b""))
        self.assertEqual(commands.read(b"\xff\xfe x"), (b"", b""))
        self.assertEqual(commands.read(b""), (b"", b""))

    def test_mail(self) -> None:
        """Sender and parameters, with names in capitals."""
        sender, params = commands.read_mail(b"from:<ann@example.org> size=10 Body=8BITMIME")
        self.assertEqual((sender, dict(params)), ("ann@example.org", {"SIZE": "10", "BODY": "8BITMIME"}))

    def test_numbers(self) -> None:
        """A number is ASCII digits, at most twenty: Python's own reading is wider and slower."""
        for text in ["1_0", " 7", "+1", "-1", "0x1", "\u0661", "", "9" * 21]:
            self.assertIsNone(commands.number(text))
        self.assertEqual(commands.number("007"), 7)

    @settings(max_examples=500, deadline=None)
    @given(st.binary(max_size=60))
    def test_total(self, line: bytes) -> None:
        """Any octets are a command or a refusal with a code, an enhanced code and a printable text."""
        for reading in (commands.read_mail, commands.read_rcpt):
            for lead in (b"", b"FROM:<", b"TO:<a@b.example> "):
                try:
                    address, params = reading(lead + line)
                except CommandError as error:
                    self.assertIn(error.code, (500, 501, 553))
                    self.assertTrue(error.enhanced.startswith("5."))
                    self.assertTrue(error.text.isprintable())
                else:
                    self.assertTrue(address.isprintable())
                    self.assertTrue(all(name.isascii() for name in params))
