"""The header of a message that passes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.message import MAX_HEADER, Header, date, fields


def header(content: bytes, size: int = 0) -> Header:
    """The header of a content that comes in pieces."""
    found = Header()
    for start in range(0, len(content), size or max(len(content), 1)):
        found.feed(content[start : start + (size or len(content))])
    return found


class HeaderTests(SynchronousTestCase):
    """Collecting and reading a header."""

    def test_header_ends_at_the_blank_line(self) -> None:
        """The header is what stands before the blank line."""
        found = header(b"A: 1\r\nB: 2\r\n fold\r\n\r\nbody: no field\r\n")
        self.assertEqual(found.octets, b"A: 1\r\nB: 2\r\n fold\r\n")
        self.assertEqual(found.names(), [b"a", b"b"])
        self.assertFalse(found.absent)

    def test_no_header(self) -> None:
        """Text without a header is told, so that a blank line can be put before it; an empty header is one."""
        self.assertTrue(header(b"hello\r\n").absent)
        self.assertFalse(header(b"\r\nhello\r\n").absent)
        self.assertTrue(header(b"\r\nhello\r\n").complete)

    def test_bounded(self) -> None:
        """A header without end is cut."""
        found = header(b"A: " + b"x" * 2 * MAX_HEADER, 1000)
        self.assertEqual(len(found.octets), MAX_HEADER)
        self.assertTrue(found.complete)

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.sampled_from([b"A: 1", b"\r\n", b" fold", b"text", b"\r\n\r\n"]), max_size=12), st.integers(1, 9)
    )
    def test_cuts_change_nothing(self, parts: list[bytes], size: int) -> None:
        """However a message is cut, its header is the same."""
        content = b"".join(parts)
        self.assertEqual(header(content, size).octets, header(content).octets)

    def test_fields_keep_their_octets(self) -> None:
        """Fields come back as they were written, folds included."""
        octets = b"Subject: a\r\n b\r\nX:y\r\n"
        self.assertEqual([field for _, field in fields(octets)], [b"Subject: a\r\n b\r\n", b"X:y\r\n"])

    def test_date(self) -> None:
        """A date has the form of RFC 5322."""
        self.assertEqual(date(0), "Thu, 1 Jan 1970 00:00:00 +0000")
