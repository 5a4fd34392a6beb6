"""The log of mail."""

import io
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from vmtpd.logs import MAX_LINES, File, Lines, quoted
from vmtpd.mail import Client


class Broken(io.StringIO):
    """A file on a disk that is full, for a while."""

    full = True

    def write(self, text: str) -> int:
        """Take text, or not."""
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


class LineTests(SynchronousTestCase):
    """What one line looks like, and when it is written."""

    def setUp(self) -> None:
        """A log into memory, at a fixed time."""
        self.output = io.StringIO()
        self.turn: list[Callable[[], None]] = []
        self.lines = Lines(self.output, self.turn.append, wall=lambda: 1795341600.5)

    def test_text(self) -> None:
        """A line tells time, id, event and fields; a value with blanks is quoted, an empty one left out."""
        self.lines.write(
            "relayed", "0gz3k7m2v9q4a", to="<a@b.example>", tls="", host=None, tries=1, reply="250 2.0.0 ok"
        )
        self.lines.flush()
        self.assertEqual(
            self.output.getvalue(),
            '2026-11-22T10:00:00Z 0gz3k7m2v9q4a relayed to=<a@b.example> tries=1 reply="250 2.0.0 ok"\n',
        )

    def test_json(self) -> None:
        """In the other form a line is one JSON object."""
        lines = Lines(self.output, self.turn.append, "json", lambda: 1795341600.5)
        client = Client("address", "192.0.2.1")
        lines.write("delayed", "0gz3k7m2v9q4a", reply='4.3.0 "x"\n', tries=2, tls="", client=client)
        lines.flush()
        want = {
            "time": "2026-11-22T10:00:00Z",
            "id": "0gz3k7m2v9q4a",
            "event": "delayed",
            "reply": '4.3.0 "x"\n',
            "tries": 2,
        }
        self.assertEqual(json.loads(self.output.getvalue()), want | {"client": "192.0.2.1"})

    def test_nobody_forges_a_line(self) -> None:
        """A reply with line ends, quotes or terminal controls stays one value of one line."""
        self.lines.write("failed", "id", reply='550 no\r\n2026 x relayed to=<a> "q" \\ \x1b[2J \x85')
        self.lines.flush()
        text = self.output.getvalue()
        self.assertEqual(text.count("\n"), 1)
        self.assertIn(r'reply="550 no\r\n2026 x relayed to=<a> \"q\" \\ \x1b[2J \x85"', text)

    def test_once_a_turn(self) -> None:
        """All lines of a turn are written together at its end."""
        for _ in range(3):
            self.lines.write("accepted", "id")
        self.assertEqual((len(self.turn), self.output.getvalue()), (1, ""))
        self.turn[0]()
        self.assertEqual(self.output.getvalue().count("\n"), 3)
        self.lines.write("accepted", "id")
        self.assertEqual(len(self.turn), 2)

    def test_bounded(self) -> None:
        """A long turn does not keep lines without bound."""
        for _ in range(MAX_LINES):
            self.lines.write("accepted", "id")
        self.assertEqual(self.output.getvalue().count("\n"), MAX_LINES)

    def test_long_value(self) -> None:
        """A value without end is cut."""
        self.lines.write("failed", "id", reply="x" * 100000)
        self.lines.flush()
        self.assertLess(len(self.output.getvalue()), 1100)
        self.assertIn('xxx..."', self.output.getvalue())

    def test_full_disk(self) -> None:
        """Lines that could not be written are counted, and told once there is room; nothing is raised."""
        output = Broken()
        lines = Lines(output, self.turn.append, wall=lambda: 1795341600.5)
        for _ in range(2):
            lines.write("accepted", "id")
            lines.write("accepted", "id")
            lines.flush()
        output.full = False
        lines.write("accepted", "id")
        lines.flush()
        lines.write("accepted", "id")
        lines.flush()
        self.assertEqual(
            [line[21:] for line in output.getvalue().splitlines()], ["- log-lost lines=4", "id accepted", "id accepted"]
        )

    @given(st.text())
    def test_quoting(self, text: str) -> None:
        """Whatever a value is, it is quoted as one printable word between two quotes."""
        shown = quoted(text)
        self.assertTrue(shown.isprintable())
        self.assertNotRegex(shown[1:-1], r'(?<!\\)(\\\\)*"')


class FileTests(SynchronousTestCase):
    """A log file."""

    def test_appends_and_follows_rotation(self) -> None:
        """Lines are appended; a file that was moved away is made anew, and the old one keeps what it has."""
        path = Path(self.mktemp())
        path.write_text("before\n")
        file = File(str(path))
        file.write("one\n")
        path.rename(f"{path}.1")
        file.write("two\n")
        self.assertEqual(Path(f"{path}.1").read_text(), "before\none\n")
        self.assertEqual(path.read_text(), "two\n")
        self.assertEqual(path.stat().st_mode & 0o007, 0)

    def test_cannot_be_opened(self) -> None:
        """A file that cannot be opened is told at the start; later its lines are counted as lost."""
        file = File("/dev/null/log")
        self.assertRaises(OSError, file.open)
        self.assertRaises(OSError, file.write, "x")
