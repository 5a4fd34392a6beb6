"""Plain words and columns."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.stubs import ID, told, waiting
from vmtpd.admin import shown
from vmtpd.ctl import words

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def recipient(**fields: Any) -> dict[str, Any]:
    """The recipient of the waiting message, with other fields."""
    row: dict[str, Any] = shown(waiting())["recipients"][0]
    return row | fields


class WordsTests(SynchronousTestCase):
    """What an operator reads."""

    def test_standing(self) -> None:
        """Where a recipient stands is said in words, with the reason."""
        for row, want in (
            (recipient(), "waiting for mx.example.net until 10:04:00 (in 4 min): connection refused"),
            (recipient(due="2026-11-22T09:00:00Z"), "due now, after 3 tries: connection refused"),
            (recipient(due="2026-11-22T09:00:00Z", tries=0, reply=None), "due now"),
            (recipient(state="leased"), "being delivered, try 4"),
            (recipient(state="held"), "held, after 3 tries: connection refused"),
            (recipient(state="held", tries=0, reply=None), "held"),
            (recipient(state="done", action="relayed", reply="250 2.0.0 ok"), "relayed: 250 2.0.0 ok"),
            (recipient(state="done", action="deleted"), "deleted by the operator"),
        ):
            self.assertEqual(words.standing(row, NOW), want)

    def test_times_and_sizes(self) -> None:
        """Durations and sizes come in their largest unit; other days have their date."""
        self.assertEqual(
            [words.lasting(s) for s in (-5, 59, 60, 7200, 12000, 431999)],
            ["0 s", "59 s", "1 min", "2 h", "3 h 20 min", "4 d 23 h"],
        )
        sizes = [words.size(n) for n in (0, 1023, 1500, 200 << 10, 50 << 20, 5 << 40, None)]
        self.assertEqual(sizes, ["0 B", "1023 B", "1.5 KiB", "200 KiB", "50.0 MiB", "5120 GiB", "?"])
        self.assertEqual(words.at("2026-11-23T10:05:00Z", NOW), "2026-11-23 10:05")
        self.assertEqual(words.until("2026-11-22T09:00:00Z", NOW), "now")
        self.assertEqual((words.at("soon", NOW), words.since(None, NOW)), ("?", "?"))

    def test_story(self) -> None:
        """The story tells from whom, when, each try with host, TLS and reply, and what is next."""
        self.assertEqual(
            words.story(shown(told()), NOW),
            [
                f"message   {ID}",
                "sender    ann@example.org",
                "received  08:00:00 (2 h ago) from 192.168.1.20 at listener smtp",
                "size      1.5 KiB",
                "tried     until 2026-11-23 10:00 (in 1 d), then the sender is told that it failed",
                "",
                "recipients",
                "  bob@example.net: waiting for mx.example.net until 10:04:00 (in 4 min): connection refused",
                "",
                "what happened",
                "  08:00:00  received from 192.168.1.20",
                "  09:59:00  bob@example.net  delayed by mx.example.net[192.0.2.1]:25 (TLSv1.3): 451 4.3.0 later; "
                "next try 10:04:00",
            ],
        )

    def test_queue_in_a_pipe(self) -> None:
        """In a pipe nothing is cut, columns are aligned, and a message whose recipients are many says so."""
        row = shown(waiting() | {"more": True, "sender": ""})
        lines = words.queue([row], NOW, None)
        self.assertEqual(lines[1].index("bob@"), lines[0].index("RECIPIENT"))
        self.assertTrue(lines[1].startswith(f"{ID}  2 h  1.5 KiB  <> (a report)"))
        self.assertTrue(lines[1].endswith("connection refused"))
        self.assertTrue(lines[2].endswith(f"and more; see: vmtpctl show {ID}"))
        self.assertNotIn("\t", "".join(lines))

    def test_queue_on_a_terminal(self) -> None:
        """On a terminal no line is longer than it is wide; the reason goes below rather than away."""
        row = shown(waiting())
        row["sender"] = "a-very-long-local-part-indeed@and-a-long-domain.example.org"
        lines = words.queue([row], NOW, 160)
        self.assertEqual((len(lines), max(map(len, lines)) <= 160), (2, True))
        self.assertIn("…", lines[1])
        lines = words.queue([row], NOW, 80)
        self.assertEqual((len(lines), max(map(len, lines)) <= 80), (4, True))
        self.assertEqual(lines[3], "    waiting for mx.example.net until 10:04:00 (in 4 min): connection refused")

    def test_status(self) -> None:
        """The status says what is down, until when and why."""
        down = {
            "name": "mx.example.net",
            "state": "down",
            "until": "2026-11-22T10:04:00Z",
            "failures": 1,
            "reply": "timed out",
        }
        row = {
            "version": "1",
            "hostname": "relay",
            "started": "2026-11-20T10:00:00Z",
            "listeners": [{"name": "smtp", "listen": ["*:25"], "role": "relay", "tls": "none"}],
            "queue": {
                "queued": 2,
                "leased": 0,
                "held": 1,
                "messages": 3,
                "octets": 3000,
                "oldest": "2026-11-22T08:00:00Z",
            },
            "metrics": {"accepted": 5, "failed_logins": 1, "failed": 0},
            "destinations": [down | {"waiting": 2}, {"name": "b", "state": "up", "deliveries": 3, "waiting": 0}],
        }
        text = "\n".join(words.status(row, NOW, None))
        for want in (
            "vmtpd 1 on relay, up for 2 d",
            "listener  smtp: *:25, relay, TLS none",
            "2 waiting, 0 being delivered, 1 held",
            "3 messages, 2.9 KiB, the oldest of 2 h ago",
            "counted   accepted 5, failed logins 1",
            "down until 10:04:00 (in 4 min), 1 failure: timed out",
            "up, 3 deliveries under way, 0 in line",
        ):
            self.assertIn(want, text)

    @given(st.text())
    def test_terminal_is_safe(self, text: str) -> None:
        """Whatever a peer or a sender says, no control character reaches the terminal."""
        row = waiting() | {"sender": text, "recipients": [recipient(reply=text, address=text)]}
        for line in words.queue([row], NOW, 80) + words.story(row, NOW):
            self.assertTrue(line.isprintable())

    def test_zones(self) -> None:
        """Times are shown in the zone of the one who reads."""
        local = NOW.astimezone(datetime.now().astimezone(UTC).tzinfo) + timedelta(0)
        self.assertEqual(words.at("2026-11-22T12:30:00+02:00", local), "10:30:00")
