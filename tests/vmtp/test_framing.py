"""The content of DATA, read and written, in one piece and in all others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.framing import DataReader, DotStuffer, damage

# What a framing can be fooled with, in every order.
OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\r\n.\r\n"]), max_size=24).map(b"".join)


def in_two(data: bytes, cut: int) -> tuple[bytes, bytes | None, str]:
    """Read content that comes in two pieces."""
    reader = DataReader()
    content, behind = reader.receive(data[:cut])
    if behind is not None:
        return content, behind + data[cut:], reader.damage
    more, behind = reader.receive(data[cut:])
    return content + more, behind, reader.damage


class DataReaderTests(SynchronousTestCase):
    """Octets in, content out."""

    def test_only_crlf_dot_crlf_ends(self) -> None:
        """The content ends at CR LF dot CR LF, and what stands behind is left for the next command."""
        self.assertEqual(DataReader().receive(b"hello\r\n.\r\nQUIT\r\n"), (b"hello\r\n", b"QUIT\r\n"))

    def test_empty(self) -> None:
        """A dot at once is an empty message."""
        self.assertEqual(DataReader().receive(b".\r\n"), (b"", b""))

    def test_dots_are_unstuffed(self) -> None:
        """A line that begins with a dot loses it, on the first line too."""
        self.assertEqual(DataReader().receive(b"..a\r\n...\r\n.\r\n"), (b".a\r\n..\r\n", b""))

    def test_damage_is_told_and_nothing_more_given(self) -> None:
        """A content with a bare LF is read to its true end, but no more of it comes out."""
        reader = DataReader()
        self.assertEqual(reader.receive(b"a\n.\nb"), (b"", None))
        self.assertEqual(reader.receive(b"c\r\n.\r\nX"), (b"", b"X"))
        self.assertEqual(reader.damage, "bare LF")

    @settings(max_examples=400, deadline=None)
    @given(OCTETS, st.integers(0, 60))
    def test_cuts_change_nothing(self, data: bytes, cut: int) -> None:
        """However the network cuts a content, it is read the same."""
        reader = DataReader()
        content, behind = reader.receive(data)
        split, split_behind, split_damage = in_two(data, cut)
        self.assertEqual((split_behind, bool(split_damage)), (behind, bool(reader.damage)))
        if not reader.damage:
            self.assertEqual(split, content)

    @settings(max_examples=400, deadline=None)
    @given(OCTETS)
    def test_what_comes_out_is_undamaged(self, data: bytes) -> None:
        """What is given out holds no bare CR, no bare LF and no NUL."""
        content, _ = DataReader().receive(data)
        self.assertEqual(damage(content), "")


class DotStufferTests(SynchronousTestCase):
    """Content in, octets for the wire out."""

    def test_end_is_added(self) -> None:
        """A last line without its end gets one before the dot."""
        stuffer = DotStuffer()
        self.assertEqual(stuffer.feed(b"a") + stuffer.finish(), b"a\r\n.\r\n")

    @settings(max_examples=400, deadline=None)
    @given(OCTETS.filter(lambda octets: not damage(octets)), st.lists(st.integers(0, 40), max_size=4))
    def test_reader_undoes_it(self, content: bytes, cuts: list[int]) -> None:
        """What is stuffed in any pieces, a server reads back octet for octet, and nothing stands behind it."""
        stuffer, wire, start = DotStuffer(), b"", 0
        for cut in [*sorted(cuts), len(content)]:
            wire += stuffer.feed(content[start:cut])
            start = max(start, cut)
        wire += stuffer.finish()
        read, behind = DataReader().receive(wire)
        self.assertEqual(behind, b"")
        self.assertIn(read, (content, content + b"\r\n"))
