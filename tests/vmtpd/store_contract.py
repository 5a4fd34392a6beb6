"""What every store does: the tests of IStore, for each implementation to mix in.

A test case gives `makeStore`, which returns an open store whose wall clock tells `self.now`, and whose Deferreds have fired
when they are returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface.verify import verifyObject

from vmtp.envelope import Action, Envelope, Recipient
from vmtpd import ids
from vmtpd.interfaces import IContent, IReader, ISink, IStore
from vmtpd.mail import Client, Counts, Destination, Outcome, QueueFilter, Settlement, Submission, Wait

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object

NOW = 1_800_000_000.0
DAY = 86400.0
ALL = QueueFilter()
PRINTER = Client("address", "192.0.2.1")


def settled(id: int, n: int, action: Action, reply: str = "250 2.0.0 ok", **rest: Any) -> Settlement:
    """An outcome of recipient n."""
    return Settlement(id, Outcome(n, action, "", reply, "mx.example.org", "TLSv1.3"), **rest)


class Scenes(Base):
    """What tests of a store do with it again and again."""

    everything = ALL
    body = b"Subject: scan\r\n\r\nhello\r\n"

    now = NOW
    store: Any

    def content(self, body: bytes) -> Any:
        """What a sink makes of a body."""
        sink = self.store.sink()
        for at in range(0, len(body), 10_000):
            self.successResultOf(maybeDeferred(sink.write, body[at : at + 10_000]))
        return self.successResultOf(maybeDeferred(sink.finish))

    def submission(
        self,
        *recipients: str | Recipient,
        sender: str = "printer@example.org",
        body: bytes = body,
        client: Client = PRINTER,
        **rest: Any,
    ) -> Submission:
        """A message on its way in."""
        to = tuple(each if isinstance(each, Recipient) else Recipient(each) for each in recipients)
        envelope = Envelope(sender, to or (Recipient("ann@example.org"),))
        return Submission(self.store.newId(), client, "lan", envelope, b"Received: x\r\n", self.content(body), **rest)

    def add(self, *recipients: str, lease: bool = False, **rest: Any) -> int:
        """Store a message, queued or born leased; its id."""
        submission = self.submission(*recipients, **rest)
        self.successResultOf(self.store.add(submission, lease, self.now + 5 * DAY))
        return submission.id

    def get(self, deferred: Deferred[Any]) -> Any:
        """What a store answers."""
        return self.successResultOf(deferred)

    def leased(self, limit: int = 100, now: float | None = None) -> list[tuple[int, list[int]]]:
        """Lease; ids with the numbers of their recipients."""
        leases = self.get(self.store.lease(limit, self.now if now is None else now))
        return [(lease.message.id, [each.n for each in lease.recipients]) for lease in leases]

    def read(self, content: Any) -> bytes:
        """All octets of a content."""
        reader = content.open()
        self.assertTrue(verifyObject(IReader, reader))
        parts = []
        while part := self.successResultOf(maybeDeferred(reader.read, 50_000)):
            self.assertLessEqual(len(part), 50_000)
            parts.append(part)
        reader.close()
        reader.close()
        return b"".join(parts)

    def actions(self, id: int) -> list[tuple[int, str]]:
        """Recipient and action of a message's events."""
        return [(event["n"], event["action"]) for event in self.get(self.store.story(id))["events"]]


class StoreContract(Scenes):
    """The contract."""

    def makeStore(self) -> Any:
        """An open store."""
        raise self.failureException("each store makes its own")

    def setUp(self) -> None:
        """Every test has an empty store."""
        self.store = self.makeStore()

    # In and out

    def test_is_a_store(self) -> None:
        """It has all that a store must have, and a name of its own."""
        self.assertTrue(verifyObject(IStore, self.store))
        self.assertTrue(verifyObject(ISink, self.store.sink()))
        self.assertTrue(verifyObject(IContent, self.content(b"")))
        self.assertEqual(len(self.store.id), 20)

    def test_new_ids_rise(self) -> None:
        """Each message has an id of its own, greater than all before."""
        made = [self.store.newId() for _ in range(100)]
        self.assertEqual(made, sorted(set(made)))

    def test_what_goes_in_comes_out(self) -> None:
        """A message is delivered with envelope, parameters, head and body as they came in."""
        params = {"NOTIFY": "FAILURE", "ORCPT": "rfc822;ann+40x"}
        submission = self.submission(Recipient("ann@example.org", params), "bob@example.org")
        submission = Submission(
            submission.id,
            Client("login", "scanner"),
            "lan",
            submission.envelope._replace(params={"BODY": "8BITMIME", "SMTPUTF8": ""}),
            submission.head,
            submission.content,
        )
        kept = self.get(self.store.add(submission, False, self.now + DAY))
        [lease] = self.get(self.store.lease(10, self.now))
        for message in (kept, lease.message):
            self.assertEqual(message.id, submission.id)
            self.assertEqual(message.client, Client("login", "scanner"))
            self.assertEqual(message.sender, "printer@example.org")
            self.assertEqual(dict(message.params), {"BODY": "8BITMIME", "SMTPUTF8": ""})
            self.assertEqual((message.arrived, message.expires, message.warned), (self.now, self.now + DAY, False))
            self.assertEqual(message.head, b"Received: x\r\n")
            self.assertEqual(self.read(message.content), b"Subject: scan\r\n\r\nhello\r\n")
            self.assertEqual(message.size, 13 + 24)
        self.assertEqual([(each.n, each.address, each.tries) for each in lease.recipients],
                         [(1, "ann@example.org", 0), (2, "bob@example.org", 0)])  # fmt: skip
        self.assertEqual([dict(each.params) for each in lease.recipients], [params, {}])

    def test_large_content(self) -> None:
        """A scan of some megabytes comes out octet for octet, with its digest."""
        body = bytes(range(256)) * 9000
        id = self.add(body=body)
        [lease] = self.get(self.store.lease(10, self.now))
        self.assertEqual(lease.message.id, id)
        self.assertEqual(lease.message.content.size, len(body))
        self.assertEqual(lease.message.content.digest, sha256(body + b"\r\n").digest())
        self.assertEqual(self.read(lease.message.content), body)

    def test_digest(self) -> None:
        """The digest is that of the octets, with CRLF added where they end without, however large they are."""
        for size in (0, 10, 100_000):
            for end in (b"", b"\r\n", b"\r", b"\n"):
                body = b"x" * size + end
                whole = body if end == b"\r\n" else body + b"\r\n"
                self.assertEqual(self.content(body).digest, sha256(whole).digest(), (size, end))

    def test_discard(self) -> None:
        """A sink may be discarded at any time, and twice."""
        for size in (10, 100_000):
            sink = self.store.sink()
            self.successResultOf(maybeDeferred(sink.write, b"x" * size))
            sink.discard()
            sink.discard()
            sink = self.store.sink()
            self.successResultOf(maybeDeferred(sink.write, b"x" * size))
            content = self.successResultOf(maybeDeferred(sink.finish))
            self.assertEqual(content.size, size)
            sink.discard()
            sink.discard()

    def test_discard_after_storing(self) -> None:
        """Once a message is stored, a late discard of its sink takes nothing away."""
        for size in (10, 100_000):
            sink = self.store.sink()
            self.successResultOf(maybeDeferred(sink.write, b"x" * size))
            submission = self.submission()
            content = self.successResultOf(maybeDeferred(sink.finish))
            submission = Submission(
                submission.id, submission.client, "lan", submission.envelope, submission.head, content
            )
            self.get(self.store.add(submission, False, self.now + DAY))
            sink.discard()
            [lease] = self.get(self.store.lease(1, self.now))
            self.assertEqual(len(self.read(lease.message.content)), size)

    def test_same_id_twice(self) -> None:
        """An id that exists fails the second add, and the first stays as it is."""
        submission = self.submission()
        self.get(self.store.add(submission, False, self.now + DAY))
        self.failureResultOf(self.store.add(submission, False, self.now + DAY))
        self.assertEqual(self.leased(), [(submission.id, [1])])

    def test_nobody(self) -> None:
        """A message without recipients is refused, as it would never be done."""
        submission = self.submission()
        submission = Submission(
            submission.id, submission.client, "lan", Envelope("a@example.org", ()), b"", submission.content
        )
        self.failureResultOf(self.store.add(submission, False, self.now), ValueError)
        self.assertIsNone(self.get(self.store.story(submission.id)))

    # Leases

    def test_born_leased(self) -> None:
        """What is delivered at once is leased in the commit that stores it, and to nobody else."""
        id = self.add(lease=True)
        self.assertEqual(self.leased(), [])
        self.assertIsNone(self.get(self.store.nextDue()))
        self.get(self.store.settle([settled(id, 1, "relayed")]))
        self.assertEqual(self.get(self.store.counts()), Counts(0, 0, 0, 0, 0, 0.0))

    def test_leased_once(self) -> None:
        """Nobody delivers what another is delivering."""
        id = self.add("ann@example.org", "bob@example.org")
        self.assertEqual(self.leased(limit=1), [(id, [1])])
        self.assertEqual(self.leased(), [(id, [2])])
        self.assertEqual(self.leased(), [])

    def test_not_before(self) -> None:
        """A message that is to be held for a while is not delivered before its time."""
        id = self.add(not_before=self.now + 60)
        self.assertEqual(self.get(self.store.nextDue()), self.now + 60)
        self.assertEqual(self.leased(now=self.now + 59), [])
        self.assertEqual(self.leased(now=self.now + 60), [(id, [1])])

    def test_longest_due_first(self) -> None:
        """Whoever waits longest is served first."""
        late, early, between = (self.add(not_before=self.now + wait) for wait in (30, 10, 20))
        self.assertEqual(self.get(self.store.nextDue()), self.now + 10)
        self.assertEqual(self.leased(limit=2, now=self.now + 100), [(early, [1]), (between, [1])])
        self.assertEqual(self.leased(limit=2, now=self.now + 100), [(late, [1])])

    def test_known_to_be_down(self) -> None:
        """Mail for a destination that is down is put where it waits at once, and its story says until when and why."""
        wait = Wait(self.now + 300, "connection refused")
        new = self.submission("a@down.example", "b@down.example")
        id = self.get(self.store.add(new, False, self.now + 999, ["down.example"] * 2, wait)).id
        self.assertEqual(self.leased(), [])
        self.assertEqual(self.get(self.store.nextDue()), self.now + 300)
        story = self.get(self.store.story(id))
        self.assertEqual(self.actions(id), [(0, "received"), (1, "delayed"), (2, "delayed")])
        self.assertEqual(
            [(r["action"], r["reply"], r["tries"]) for r in story["recipients"]], [("delayed", wait.reply, 0)] * 2
        )
        self.assertEqual(self.get(self.store.wake("down.example", self.now, 10)), 2)
        self.assertEqual(self.leased(), [(id, [1, 2])])

    def test_known_to_be_down_and_meant_for_later(self) -> None:
        """A message that is meant for later stays for later, though its destination may be up before."""
        new = self.submission("a@down.example", not_before=self.now + 900)
        self.get(
            self.store.add(new, False, self.now + 999, ["down.example"], Wait(self.now + 300, "connection refused"))
        )
        self.assertEqual(self.get(self.store.nextDue()), self.now + 900)

    def test_avoided_destinations(self) -> None:
        """A destination that holds too much already is passed over, and gets its turn later."""
        slow = self.get(self.store.add(self.submission(), False, self.now + 99, ["slow.example"])).id
        other = self.get(self.store.add(self.submission(), False, self.now + 99, ["other.example"])).id
        unknown = self.add()
        leases = self.get(self.store.lease(10, self.now, ["slow.example", "dead.example"]))
        self.assertEqual([lease.message.id for lease in leases], [other, unknown])
        self.assertEqual(self.leased(), [(slow, [1])])

    def test_crowd_in_front(self) -> None:
        """However many wait for a slow destination, those behind them are found, the longest due first."""
        for name in ["slow.example"] * 30 + ["a.example", "c.example", "", "b.example"] * 3:
            self.now += 1
            self.get(self.store.add(self.submission(), False, self.now + DAY, [name] if name else []))
        waiting = self.get(self.store.queue(ALL, 100, 0))
        behind = [ids.decode(row["id"]) for row in waiting[30:]]
        for begin in (0, 5, 10):
            leases = self.get(self.store.lease(5, self.now, ["slow.example", "dead.example"]))
            self.assertEqual([lease.message.id for lease in leases], behind[begin : begin + 5])
        self.assertEqual(self.get(self.store.lease(5, self.now, ["slow.example"])), [])
        self.assertEqual(len(self.leased()), 30)

    # Outcomes

    def test_delayed(self) -> None:
        """A recipient that could not be reached is tried again when it is due, and the operator sees why."""
        id = self.add(lease=True)
        reply = "450 4.2.1 mailbox busy"
        self.get(self.store.settle([settled(id, 1, "delayed", reply, due=self.now + 300, destination="example.org")]))
        self.assertEqual(self.leased(now=self.now + 299), [])
        [row] = self.get(self.store.story(id))["recipients"]
        self.assertEqual(
            row,
            {
                "n": 1,
                "address": "ann@example.org",
                "state": "queued",
                "action": "delayed",
                "due": self.now + 300,
                "tries": 1,
                "reply": reply,
                "destination": "example.org",
            },
        )
        self.assertEqual(
            self.get(self.store.story(id))["events"][-1],
            {
                "at": self.now,
                "n": 1,
                "action": "delayed",
                "host": "mx.example.org",
                "tls": "TLSv1.3",
                "reply": reply,
                "next": self.now + 300,
            },
        )
        [lease] = self.get(self.store.lease(1, self.now + 300))
        self.assertEqual(lease.recipients[0].tries, 1)

    def test_host_down(self) -> None:
        """While a host is down, waiting counts no tries and fills no history."""
        id = self.add(lease=True)
        down = settled(id, 1, "delayed", "host is down", due=self.now + 60, destination="example.org", attempt=False)
        for _ in range(3):
            self.get(self.store.settle([down]))
            self.assertEqual(self.leased(now=self.now + 60), [(id, [1])])
        self.assertEqual(self.actions(id), [(0, "received"), (1, "delayed")])
        self.assertEqual(self.get(self.store.story(id))["recipients"][0]["tries"], 0)
        other = settled(id, 1, "delayed", "connection refused", due=self.now + 60, destination="example.org")
        self.get(self.store.settle([other]))
        self.assertEqual(self.actions(id), [(0, "received"), (1, "delayed"), (1, "delayed")])

    def test_done(self) -> None:
        """A message is open until its last recipient is done; its story stays."""
        id = self.add("ann@example.org", "bob@example.org", lease=True)
        self.get(self.store.settle([settled(id, 1, "relayed")]))
        self.assertEqual(self.get(self.store.counts()).messages, 1)
        self.get(self.store.settle([settled(id, 2, "failed", "550 5.1.1 no such user")]))
        self.assertEqual(self.get(self.store.counts()), Counts(0, 0, 0, 0, 0, 0.0))
        self.assertEqual(self.get(self.store.queue(ALL, 10, 0)), [])
        story = self.get(self.store.story(id))
        self.assertEqual([each["action"] for each in story["recipients"]], ["relayed", "failed"])
        self.assertEqual([each["state"] for each in story["recipients"]], ["done", "done"])
        self.assertEqual([each["due"] for each in story["recipients"]], [None, None])
        self.assertEqual(self.actions(id), [(0, "received"), (1, "relayed"), (2, "failed")])

    def test_settled_twice(self) -> None:
        """An outcome for what is not leased changes nothing."""
        id = self.add(lease=True)
        self.get(self.store.settle([settled(id, 1, "relayed")]))
        waiting = self.add()
        self.get(self.store.settle([settled(id, 1, "failed"), settled(waiting, 1, "failed"), settled(7, 1, "failed")]))
        self.assertEqual(self.actions(id), [(0, "received"), (1, "relayed")])
        self.assertEqual(self.leased(), [(waiting, [1])])

    def test_warned(self) -> None:
        """That a sender was told of a delay is remembered."""
        id = self.add(lease=True)
        self.get(self.store.settle([settled(id, 1, "delayed", due=self.now, warned=True)]))
        [lease] = self.get(self.store.lease(1, self.now))
        self.assertTrue(lease.message.warned)

    def test_report(self) -> None:
        """The report of a failure is stored with the failure, and due at once."""
        id = self.add(lease=True)
        report = self.submission("printer@example.org", sender="", client=Client("daemon", "vmtpd"))
        self.get(self.store.settle([settled(id, 1, "failed")], [report], self.now + DAY))
        [lease] = self.get(self.store.lease(10, self.now))
        self.assertEqual((lease.message.id, lease.message.sender), (report.id, ""))
        self.assertEqual(lease.message.expires, self.now + DAY)

    def test_wake(self) -> None:
        """When a host is back, those who wait for it are due at once, and no others."""
        here, there = self.add(lease=True), self.add(lease=True)
        for id, destination in ((here, "example.org"), (there, "example.net")):
            self.get(self.store.settle([settled(id, 1, "delayed", due=self.now + 900, destination=destination)]))
        self.assertEqual(self.get(self.store.wake("example.org", self.now, 10)), 1)
        self.assertEqual(self.get(self.store.wake("example.org", self.now, 10)), 0)
        self.assertEqual(self.leased(), [(here, [1])])

    def test_wake_some(self) -> None:
        """A host that is back gets only as many as were asked for."""
        made = [self.add(lease=True) for _ in range(3)]
        for wait, id in enumerate(made):
            self.get(self.store.settle([settled(id, 1, "delayed", due=self.now + 100 + wait, destination="d")]))
        self.assertEqual(self.get(self.store.wake("d", self.now, 2)), 2)
        self.assertEqual(self.leased(), [(made[0], [1]), (made[1], [1])])

    def test_destinations(self) -> None:
        """The state of a destination is remembered, the newest only."""
        self.assertEqual(self.get(self.store.destinations()), [])
        down = Destination("example.org", "down", self.now + 60, 3, "connection refused")
        self.get(self.store.remember(Destination("example.net", "up")))
        self.get(self.store.remember(down._replace(failures=2)))
        self.get(self.store.remember(down))
        self.assertEqual(self.get(self.store.destinations()), [Destination("example.net", "up"), down])

    # The operator's

    def test_counts(self) -> None:
        """The queue in numbers: recipients by state, messages, octets, the oldest."""
        self.add("ann@example.org", "bob@example.org")
        self.now += 10
        self.add(lease=True)
        held = self.add()
        self.get(self.store.hold(QueueFilter(id=held), self.now))
        self.assertEqual(self.get(self.store.counts()), Counts(2, 1, 1, 3, 3 * 37, NOW))

    def test_queue(self) -> None:
        """The queue is listed oldest first, page by page, without those that are done."""
        made = [self.add("ann@example.org", "bob@example.org", lease=True) for _ in range(3)]
        self.get(self.store.settle([settled(made[0], 1, "relayed")]))
        rows = self.get(self.store.queue(ALL, 2, 0))
        self.assertEqual([row["id"] for row in rows], [ids.encode(id) for id in made[:2]])
        self.assertEqual([[each["n"] for each in row["recipients"]] for row in rows], [[2], [1, 2]])
        rows = self.get(self.store.queue(ALL, 2, made[1]))
        self.assertEqual([row["id"] for row in rows], [ids.encode(made[2])])
        recipients = rows[0].pop("recipients")
        self.assertEqual(
            rows[0],
            {
                "id": ids.encode(made[2]),
                "arrived": self.now,
                "expires": self.now + 5 * DAY,
                "sender": "printer@example.org",
                "size": 37,
                "client": "192.0.2.1",
                "listener": "lan",
                "more": False,
            },
        )
        self.assertEqual(recipients[1]["address"], "bob@example.org")
        self.assertEqual((recipients[1]["action"], recipients[1]["reply"], recipients[1]["due"]), (None, None, None))

    def test_many_recipients(self) -> None:
        """A message to many shows the first fifty in the queue, and all in its story."""
        id = self.add(*(f"user{n}@example.org" for n in range(1, 61)))
        [row] = self.get(self.store.queue(ALL, 10, 0))
        self.assertEqual((len(row["recipients"]), row["more"]), (50, True))
        story = self.get(self.store.story(id))
        self.assertEqual((len(story["recipients"]), story["more"]), (60, False))

    def test_story(self) -> None:
        """The story of a message has its metadata; an unknown id has none."""
        id = self.add(metadata={"job": "4711"})
        self.assertEqual(self.get(self.store.story(id))["metadata"], {"client": {"job": "4711"}})
        self.assertIsNone(self.get(self.store.story(id + 1)))

    def test_filters(self) -> None:
        """An operator finds messages by sender, recipient, domain, client, destination, state and id."""
        scan = self.add("ann@example.org", sender="scanner@Office.example")
        report = self.add("bob@example.net", sender="", client=Client("login", "cron"))
        waiting = self.add("cat@sub.example.org", lease=True)
        self.get(self.store.settle([settled(waiting, 1, "delayed", due=self.now + 5, destination="example.org")]))
        leased = self.add("Dan@Example.ORG", lease=True)
        for which, expected in (
            (QueueFilter(), [scan, report, waiting, leased]),
            (QueueFilter(sender="scanner@office.example"), [scan]),
            (QueueFilter(sender="@office.example"), [scan]),
            (QueueFilter(sender="<>"), [report]),
            (QueueFilter(recipient="@example.org"), [scan, leased]),
            (QueueFilter(recipient="dan@example.org"), [leased]),
            (QueueFilter(recipient="an@example.org"), []),
            (QueueFilter(client="cron"), [report]),
            (QueueFilter(client="login cron"), [report]),
            (QueueFilter(destination="example.org"), [waiting]),
            (QueueFilter(state="leased"), [leased]),
            (QueueFilter(id=report), [report]),
            (QueueFilter(id=report, sender="@office.example"), []),
            (QueueFilter(recipient="%"), []),
        ):
            rows = self.get(self.store.queue(which, 10, 0))
            self.assertEqual([row["id"] for row in rows], [ids.encode(id) for id in expected], which)

    def test_hold_and_unhold(self) -> None:
        """What is held is not delivered until it is let go; what is under way stays so."""
        waiting, leased = self.add("ann@example.org"), self.add("bob@example.org", lease=True)
        self.assertEqual(self.get(self.store.hold(ALL, self.now)), 1)
        self.assertEqual(self.leased(), [])
        self.assertEqual(self.get(self.store.counts())[:3], (0, 1, 1))
        self.now += 60
        self.assertEqual(self.get(self.store.unhold(ALL, self.now)), 1)
        self.assertEqual(self.get(self.store.nextDue()), self.now)
        self.assertEqual(self.leased(), [(waiting, [1])])
        self.assertEqual(self.actions(waiting), [(0, "received"), (1, "held"), (1, "released")])
        self.assertEqual(self.actions(leased), [(0, "received")])

    def test_retry(self) -> None:
        """An operator may have those who wait tried at once; what is held stays held."""
        id, held = self.add(not_before=self.now + 900), self.add("bob@example.org")
        self.get(self.store.hold(QueueFilter(id=held), self.now))
        self.assertEqual(self.get(self.store.retry(ALL, self.now)), 1)
        self.assertEqual(self.leased(), [(id, [1])])

    def test_delete(self) -> None:
        """What an operator deletes is done without a report; what is under way is not deleted."""
        id, held = self.add("ann@example.org", "bob@example.net"), self.add("cat@example.org")
        leased = self.add("dan@example.org", lease=True)
        self.get(self.store.hold(QueueFilter(id=held), self.now))
        self.assertEqual(self.get(self.store.delete(QueueFilter(recipient="@example.org"), self.now)), 2)
        self.assertEqual(self.get(self.store.counts())[:4], (1, 1, 0, 2))
        self.assertEqual(self.actions(id), [(0, "received"), (1, "deleted")])
        self.assertEqual(self.get(self.store.story(held))["recipients"][0]["action"], "deleted")
        self.assertEqual(self.actions(leased), [(0, "received")])

    def test_more_than_a_slice(self) -> None:
        """An operator's word reaches the whole queue, however long."""
        made: Sequence[int] = [self.add() for _ in range(2100)]
        self.assertEqual(self.get(self.store.hold(ALL, self.now)), len(made))
        self.assertEqual(self.get(self.store.delete(ALL, self.now)), len(made))
        self.assertEqual(self.get(self.store.counts()).messages, 0)
