"""Replies, made by servers and read by clients."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtp.errors import MalformedReply
from vmtp.replies import MAX_LINE, Reply, ReplyReader


def read(data: bytes, size: int = 0) -> list[Reply]:
    """All replies in data that comes in pieces of a size."""
    reader, replies = ReplyReader(), []
    for start in range(0, len(data), size or len(data) or 1):
        reader.receive(data[start : start + (size or len(data))])
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies


class ReplyTests(SynchronousTestCase):
    """A reply as a value."""

    def test_wire(self) -> None:
        """Every line carries the code and the enhanced code."""
        self.assertEqual(Reply(250, "2.1.0", "ok").wire, b"250 2.1.0 ok\r\n")
        self.assertEqual(Reply(550, "5.7.1", "no\nnever").wire, b"550-5.7.1 no\r\n550 5.7.1 never\r\n")
        self.assertEqual(Reply(354, "", "go").wire, b"354 go\r\n")

    def test_status(self) -> None:
        """A reply without an enhanced code has the least precise one of its class."""
        self.assertEqual(
            [Reply(code, "", "").status for code in (250, 354, 450, 550)], ["2.0.0", "2.0.0", "4.0.0", "5.0.0"]
        )


class ReaderTests(SynchronousTestCase):
    """Octets of a server."""

    def test_lines(self) -> None:
        """One line, several lines, a bare code, and lines that end with LF alone are read."""
        self.assertEqual(
            read(b"250 2.0.0 ok\r\n250-a\r\n250 b\r\n220\r\n421 x\n"),
            [Reply(250, "2.0.0", "ok"), Reply(250, "", "a\nb"), Reply(220, "", ""), Reply(421, "", "x")],
        )

    def test_enhanced_of_another_class_is_text(self) -> None:
        """An enhanced code that contradicts its code is not believed."""
        self.assertEqual(read(b"250 5.1.1 what\r\n"), [Reply(250, "", "5.1.1 what")])

    def test_refused(self) -> None:
        """What is no reply ends the conversation: no code, codes that differ, too long, too many lines."""
        for data in [
            b"hello\r\n",
            b"99 x\r\n",
            b"650 x\r\n",
            b"250_x\r\n",
            b"\r\n",
            "\uff12\uff15\uff10 x\r\n".encode(),
            b"250-a\r\n550 b\r\n",
            b"250 " + b"x" * (MAX_LINE + 1) + b"\r\n",
            b"250 " + b"x" * (MAX_LINE + 1),
            b"250-x\r\n" * 300,
        ]:
            self.assertRaises(MalformedReply, read, data)

    def test_stays_broken(self) -> None:
        """A stream that is out of step stays so, whatever comes."""
        reader = ReplyReader()
        reader.receive(b"nonsense\r\n")
        self.assertRaises(MalformedReply, reader.next_reply)
        reader.receive(b"250 ok\r\n")
        self.assertRaises(MalformedReply, reader.next_reply)

    def test_controls_are_shown_safely(self) -> None:
        """Control characters cannot reach a log or a terminal."""
        self.assertEqual(read(b"550 a\x1b[2Jb\x00\r\n"), [Reply(550, "", "a?[2Jb?")])

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.sampled_from([b"250", b"550", b"-", b" ", b"x", b"2.0.0 ", b"\r\n", b"\n", b"\xff"]), max_size=30)
    )
    def test_cuts_change_nothing(self, parts: list[bytes]) -> None:
        """Any octets give replies or one error, the same however they are cut."""
        data = b"".join(parts)

        def outcome(size: int) -> object:
            try:
                return read(data, size)
            except MalformedReply as error:
                return str(error)

        self.assertEqual(outcome(1), outcome(0))
