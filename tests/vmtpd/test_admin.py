"""The operator's verbs."""

from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.stubs import ID, NEXT, NOW, Rooms, administration
from vmtpd import ids
from vmtpd.admin import Refused, queue_filter
from vmtpd.interfaces import StoreFull
from vmtpd.mail import QueueFilter


class AdminTests(SynchronousTestCase):
    """What an operator asks, and what is done."""

    def setUp(self) -> None:
        """The verbs over a store that notes what it is asked."""
        self.rooms = Rooms()
        self.admin, self.log = administration(self.rooms)

    def test_status(self) -> None:
        """The status tells who the daemon is, the queue in numbers, and what is down; times are text."""
        row = self.successResultOf(self.admin.status())
        self.assertEqual((row["hostname"], row["started"]), ("relay.example.org", "2026-11-22T10:00:00Z"))
        self.assertEqual((row["queue"]["queued"], row["queue"]["oldest"]), (2, "2026-11-22T08:00:00Z"))
        self.assertEqual(row["destinations"][0]["until"], "2026-11-22T10:04:00Z")
        self.assertEqual(row["metrics"]["accepted"], 5)
        self.assertEqual(row["listeners"], [{"name": "smtp", "role": "relay", "tls": "none", "listen": ["*:25"]}])

    def test_queue_in_pages(self) -> None:
        """The queue is shown in pages; the last one says that it is."""
        row = self.successResultOf(self.admin.queue(QueueFilter(), 1))
        self.assertEqual(([one["id"] for one in row["messages"]], row["next"]), ([ID], ID))
        self.assertEqual(row["messages"][0]["recipients"][0]["due"], "2026-11-22T10:04:00Z")
        self.rooms.rows = self.rooms.rows[1:]
        row = self.successResultOf(self.admin.queue(QueueFilter(sender="@example.org"), 1, ID))
        self.assertEqual(([one["id"] for one in row["messages"]], row["next"]), ([NEXT], None))
        self.assertEqual(self.rooms.asked[-1], ("queue", QueueFilter(sender="@example.org"), 2, ids.decode(ID)))

    def test_pages_are_bounded(self) -> None:
        """However much is asked for, a page has an end."""
        self.successResultOf(self.admin.queue(QueueFilter(), 10**9))
        self.successResultOf(self.admin.queue(QueueFilter(), -5))
        self.assertEqual([asked[2] for asked in self.rooms.asked], [1001, 2])

    def test_changes(self) -> None:
        """Each verb reaches the store, is logged with its filter, and what became due is looked at now."""
        which = QueueFilter(destination="mx.example.net")
        for verb, method in (("retry", "retry"), ("hold", "hold"), ("release", "unhold"), ("delete", "delete")):
            self.rooms.asked.clear()
            self.assertEqual(self.successResultOf(self.admin.change(verb, which, "control")), 1)
            kicked = [("kick",)] if verb in ("retry", "release") else []
            self.assertEqual(self.rooms.asked, [(method, which, NOW), *kicked])
        self.rooms.lines.flush()
        line = "2026-11-22T10:00:00Z - operator-retry by=control recipients=1 destination=mx.example.net"
        self.assertEqual((self.log.getvalue().splitlines()[0], self.log.getvalue().count("\n")), (line, 4))

    def test_unknown_verb(self) -> None:
        """A verb that is none changes nothing."""
        self.failureResultOf(self.admin.change("destroy", QueueFilter(), "control"), Refused)
        self.assertEqual(self.rooms.asked, [])

    def test_story(self) -> None:
        """A message's story is found by its id; no id is refused, an unknown one is None."""
        row = self.successResultOf(self.admin.story(ID))
        self.assertEqual(row["events"][1]["next"], "2026-11-22T10:04:00Z")
        self.assertIsNone(self.successResultOf(self.admin.story(NEXT)))
        self.failureResultOf(self.admin.story("x"), Refused)

    def test_send_test(self) -> None:
        """A test message is a whole message, from the admin, on its way like any other."""
        id = self.successResultOf(self.admin.send_test("bob@example.net", "control"))
        (submission,) = self.rooms.submitted
        self.assertEqual(
            (ids.encode(submission.id), submission.listener, submission.client.kind), (id, "control", "daemon")
        )
        self.assertEqual(submission.envelope.sender, "admin@example.org")
        self.assertEqual([one.address for one in submission.envelope.recipients], ["bob@example.net"])
        head, _, body = self.rooms.sinks[0].octets.partition(b"\r\n\r\n")
        self.assertIn(
            b"From: <admin@example.org>\r\nTo: <bob@example.net>\r\nDate: Sun, 22 Nov 2026 10:00:00 -0000\r\n", head
        )
        self.assertIn(f"Message-ID: <{id}.store0store0store0st@relay.example.org>".encode(), head)
        self.assertIn(f"vmtpctl show {id}".encode(), body)
        self.assertNotIn(b"\n", body.replace(b"\r\n", b""))

    def test_send_test_refused(self) -> None:
        """A test needs an address; one that could forge a header is none."""
        for to in ("bob", "bob@example.net\r\nBcc: all@example.net", ""):
            self.failureResultOf(self.admin.send_test(to, "control"), Refused)
        self.assertEqual(self.rooms.submitted, [])

    def test_store_is_full(self) -> None:
        """Trouble of the store comes through as it is."""
        self.rooms.failure = StoreFull()
        self.failureResultOf(self.admin.send_test("bob@example.net", "control"), StoreFull)

    def test_filters(self) -> None:
        """Filters have names and values that mean something."""
        want = QueueFilter(state="held", recipient="@example.net")
        self.assertEqual(queue_filter({"state": "held", "recipient": "@example.net"}), want)
        for given in ({"id": "1"}, {"state": "lost"}, {"sender": 5}, {"sender": "x" * 1000}, {"sender": "a\nb"}):
            self.assertRaises(Refused, queue_filter, given)
