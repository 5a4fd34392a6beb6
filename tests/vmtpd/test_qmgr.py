"""The queue at work: from a submission to its settlement, over good and bad destinations, on a clock of our own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from vmtp.address import split
from vmtp.envelope import Envelope, Recipient
from vmtpd import metrics, qmgr
from vmtpd.interfaces import IDelivery, IQueueManager, IRouter, ISubmit, StoreBroken, StoreFull
from vmtpd.logs import Lines
from vmtpd.mail import Client, Destination, Lease, Message, Outcome, QueueFilter, Route, Submission, Unroutable
from vmtpd.outcomes import Outcomes, Patience
from vmtpd.retry import Backoff
from vmtpd.store.memory import MemoryStore

START = 1_800_000_000.0
DAY = 86400.0


@implementer(IRouter)
class Roads:
    """Every domain is a destination of its own; `none.example` has no way out, `lost.example` no name servers."""

    def route(self, address: str) -> Route | Unroutable:
        domain = split(address)[1]
        if domain == "none.example":
            return Unroutable("failed", "5.4.4", "no route leads to this domain")
        if domain == "lost.example":
            return Unroutable("delayed", "4.4.3", "the name servers do not answer")
        return Route(domain, "smtp", domain, "test")

    def destination(self, address: str) -> str:
        return split(address)[1]


@implementer(IDelivery)
class Agent:
    """Delivers when the test says so; `host` says what all get, None to wait for `finish`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Lease, Route, Deferred[list[Outcome]]]] = []
        self.tried: list[str] = []
        self.answer: Callable[[Lease], list[Outcome]] | None = relayed

    def deliver(self, lease: Lease, route: Route) -> Deferred[list[Outcome]]:
        self.tried += [recipient.address for recipient in lease.recipients]
        if self.answer is not None:
            return succeed(self.answer(lease))
        waiting: Deferred[list[Outcome]] = Deferred()
        self.waiting.append((lease, route, waiting))
        return waiting

    def finish(self, answer: Callable[[Lease], list[Outcome]]) -> None:
        """The oldest delivery ends."""
        lease, _, waiting = self.waiting.pop(0)
        waiting.callback(answer(lease))

    def close(self) -> Deferred[None]:
        return succeed(None)


def relayed(lease: Lease) -> list[Outcome]:
    """All is well."""
    return [Outcome(r.n, "relayed", "2.0.0", "250 ok", "mx[192.0.2.1]:25") for r in lease.recipients]


def refused(lease: Lease) -> list[Outcome]:
    """The recipients do not exist."""
    return [Outcome(r.n, "failed", "5.1.1", "550 no such user", "mx[192.0.2.1]:25") for r in lease.recipients]


def greylisted(lease: Lease) -> list[Outcome]:
    """Later."""
    return [Outcome(r.n, "delayed", "4.7.1", "451 later", "mx[192.0.2.1]:25") for r in lease.recipients]


def dead(lease: Lease) -> list[Outcome]:
    """The host does not answer."""
    return [Outcome(r.n, "delayed", "4.4.1", "connection refused", scope="host") for r in lease.recipients]


class Tests(SynchronousTestCase):
    """A queue on a memory store."""

    window = 100
    backoff = Backoff(jitter=0)

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(wall=self.wall)
        self.agent = Agent()
        self.log = io.StringIO()
        self.metrics = metrics.new()
        self.manager = self.make()
        self.successResultOf(Deferred.fromCoroutine(self.manager.start()))

    def wall(self) -> float:
        """The time of day."""
        return START + self.clock.seconds()

    def make(self) -> qmgr.QueueManager:
        """A queue manager on the store."""
        lines = Lines(self.log, lambda flush: self.clock.callLater(0, flush), wall=self.wall)

        def outcomes(settled: Any, awaited: Any) -> Outcomes:
            return Outcomes(
                self.store,
                Patience(self.backoff, 4 * 3600, 5 * DAY),
                hostname="mx.example.org",
                admin="admin@example.org",
                clock=self.clock,
                wall=self.wall,
                chance=lambda: 0.5,
                lines=lines,
                metrics=self.metrics,
                settled=settled,
                awaited=awaited,
            )

        return qmgr.QueueManager(
            self.store,
            Roads(),
            {"smtp": self.agent},
            qmgr.Limits(self.window, 50, 20, 5 * DAY),
            self.backoff,
            outcomes=outcomes,
            clock=self.clock,
            wall=self.wall,
            chance=lambda: 0.5,
            metrics=self.metrics,
        )

    def submit(self, *recipients: str, sender: str = "ann@example.org", body: bytes = b"Subject: x\r\n\r\n") -> int:
        """A message comes in; the first turn after it passes."""
        sink = self.store.sink()
        sink.write(body)
        envelope = Envelope(sender, tuple(Recipient(recipient) for recipient in recipients))
        submission = Submission(self.store.newId(), Client("login", "ann"), "lan", envelope, b"", sink.finish())
        message = self.successResultOf(self.manager.submit(submission))
        assert isinstance(message, Message)
        self.turn()
        return message.id

    def turn(self, seconds: float = 0) -> None:
        """Time passes, as fine as the timers want it."""
        self.clock.advance(0)
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and min(call.getTime() for call in calls) <= end:
            self.clock.advance(max(0.0, min(call.getTime() for call in calls) - self.clock.seconds()))
        self.clock.advance(end - self.clock.seconds())

    def story(self, id: int) -> list[tuple[int, str]]:
        """What happened to a message."""
        story = self.successResultOf(self.store.story(id))
        assert story is not None
        return [(event["n"], event["action"]) for event in story["events"]]

    def states(self, id: int) -> list[str]:
        """Where its recipients stand."""
        story = self.successResultOf(self.store.story(id))
        assert story is not None
        return [recipient["state"] for recipient in story["recipients"]]

    def bodies(self) -> list[bytes]:
        """What waits in the store."""
        return [kept.message.content.open().read(10**6) for kept in self.store._kept.values()]  # type: ignore[misc]


class DeliveryTests(Tests):
    """Good days."""

    def test_interfaces(self) -> None:
        """It is what sessions submit to, and what the operator asks."""
        verifyObject(ISubmit, self.manager)
        verifyObject(IQueueManager, self.manager)

    def test_straight_through(self) -> None:
        """A message goes from the client to the next hop without being read back."""
        id = self.submit("friend@example.net")
        self.assertEqual(self.story(id), [(0, "received"), (1, "relayed")])
        self.assertEqual(self.states(id), ["done"])
        self.assertIn("relayed to=<friend@example.net> via=mx[192.0.2.1]:25 status=2.0.0", self.log.getvalue())

    def test_two_destinations(self) -> None:
        """One message to two domains is two deliveries, each with its own recipients."""
        self.agent.answer = None
        self.submit("a@one.example", "b@two.example", "c@one.example")
        self.assertEqual(
            [[r.address for r in lease.recipients] for lease, _, _ in self.agent.waiting],
            [["a@one.example", "c@one.example"], ["b@two.example"]],
        )

    def test_no_way_out(self) -> None:
        """A recipient without a route fails, the others are delivered."""
        id = self.submit("a@none.example", "b@two.example")
        self.assertEqual(sorted(self.story(id)), [(0, "received"), (1, "failed"), (2, "relayed")])

    def test_not_stored(self) -> None:
        """What the store refuses is refused, and takes no room."""
        self.store.trouble = StoreFull("full")
        sink = self.store.sink()
        submission = Submission(
            self.store.newId(),
            Client("login", "a"),
            "lan",
            Envelope("", (Recipient("a@b.example"),)),
            b"",
            sink.finish(),
        )
        self.failureResultOf(self.manager.submit(submission), StoreFull)
        self.assertEqual((self.manager._leased, self.manager._octets), (0, 0))

    def test_concurrency(self) -> None:
        """A destination gets a few deliveries at once, then more as it proves itself, never more than allowed."""
        self.agent.answer = None
        for n in range(60):
            self.submit(f"u{n}@one.example")
        self.assertEqual(len(self.agent.waiting), 5)
        for _ in range(30):
            self.agent.finish(relayed)
            self.assertLessEqual(len(self.agent.waiting), 20)
        self.assertEqual(len(self.agent.waiting), 20)

    def test_a_fault_of_an_agent(self) -> None:
        """An agent that fails by its own fault delays the mail, and the fault is logged."""
        self.agent.deliver = lambda lease, route: fail(ZeroDivisionError())  # type: ignore[method-assign]
        id = self.submit("a@one.example")
        self.assertEqual(self.story(id)[-1], (1, "delayed"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TroubleTests(Tests):
    """Bad days."""

    def test_later(self) -> None:
        """A recipient that was put off is tried again after 5 minutes, then 10, and nothing in between."""
        self.agent.answer = greylisted
        id = self.submit("a@one.example")
        self.turn(299)
        self.assertEqual(len(self.agent.tried), 1)
        self.turn(1)
        self.assertEqual(len(self.agent.tried), 2)
        self.turn(599)
        self.assertEqual(len(self.agent.tried), 2)
        self.agent.answer = relayed
        self.turn(1)
        self.assertEqual(self.states(id), ["done"])

    def test_a_dead_host_costs_one_probe(self) -> None:
        """A hundred messages to a dead host are one connection now and one after 5 minutes, and all leave when it is back."""
        self.agent.answer = dead
        ids = [self.submit(f"u{n}@one.example") for n in range(100)]
        self.assertEqual(len(self.agent.tried), 1)
        self.turn(299)
        self.assertEqual(len(self.agent.tried), 1)
        self.turn(1)
        self.assertEqual(len(self.agent.tried), 2)
        self.agent.answer = relayed
        self.turn(600)
        self.assertEqual({state for id in ids for state in self.states(id)}, {"done"})
        self.assertEqual(len(self.agent.tried), 102)

    def test_others_are_not_held_up(self) -> None:
        """While one host is dead, mail to others goes on."""
        self.agent.answer = dead
        self.submit("a@one.example")
        self.agent.answer = relayed
        self.assertEqual(self.states(self.submit("b@two.example")), ["done"])
        self.assertEqual(self.states(self.submit("c@one.example")), ["queued"])

    def test_untried_is_no_try(self) -> None:
        """What waits for a dead host is told so once, and uses up no tries."""
        self.agent.answer = dead
        self.submit("a@one.example")
        id = self.submit("b@one.example")
        self.turn(1200)
        story = self.successResultOf(self.store.story(id))
        assert story is not None
        self.assertEqual(self.story(id), [(0, "received"), (1, "delayed")])
        self.assertEqual(story["recipients"][0]["tries"], 0)
        self.assertEqual(story["recipients"][0]["reply"], "connection refused")

    def test_remembered_over_a_restart(self) -> None:
        """A dead host is still known to be dead after a restart: no storm."""
        self.agent.answer = dead
        self.submit("a@one.example")
        self.successResultOf(self.manager.stop())
        (known,) = self.successResultOf(self.store.destinations())
        self.assertEqual(known, Destination("one.example", "down", START + 300, 1, "connection refused"))
        self.manager = self.make()
        self.successResultOf(Deferred.fromCoroutine(self.manager.start()))
        self.submit("b@one.example")
        self.assertEqual(len(self.agent.tried), 1)

    def test_operator_wants_it_now(self) -> None:
        """An operator's retry probes a dead host at once."""
        self.agent.answer = dead
        id = self.submit("a@one.example")
        self.successResultOf(self.store.retry(QueueFilter(id=id), self.wall()))
        self.agent.answer = relayed
        self.manager.kick()
        self.turn()
        self.assertEqual(self.states(id), ["done"])

    def test_one_refused_connection_of_many(self) -> None:
        """A host that refuses one more connection while it serves others is not down; that message comes again soon."""
        self.agent.answer = None
        first, second = self.submit("a@one.example"), self.submit("b@one.example")
        self.agent.waiting.reverse()
        self.agent.finish(dead)
        self.assertEqual(self.manager.destinations()[0]["state"], "up")
        self.agent.finish(relayed)
        self.agent.answer = relayed
        self.turn(60)
        self.assertEqual(self.states(first) + self.states(second), ["done", "done"])

    def test_name_servers_silent(self) -> None:
        """Trouble with the name servers never bounces mail."""
        id = self.submit("a@lost.example")
        self.turn(3600)
        self.assertEqual(self.states(id), ["queued"])

    def test_a_slow_destination_does_not_stop_the_others(self) -> None:
        """A destination that swallows deliveries without end holds half of the window at most."""
        self.agent.answer = None
        for n in range(300):
            self.submit(f"u{n}@slow.example")
        self.agent.answer = relayed
        fast = [self.submit(f"u{n}@fast.example") for n in range(40)]
        self.turn(31)
        self.assertEqual({state for id in fast for state in self.states(id)}, {"done"})
        self.assertLessEqual(self.manager._leased, self.window)

    def test_more_than_the_window(self) -> None:
        """Far more mail than there is room for goes through in the end, in bounded memory."""
        self.agent.answer = None
        ids = [self.submit(f"u{n}@one.example") for n in range(500)]
        most = 0
        while self.agent.waiting:
            most = max(most, self.manager._leased)
            self.agent.finish(relayed)
            self.turn()
        self.assertEqual({state for id in ids for state in self.states(id)}, {"done"})
        self.assertLessEqual(most, self.window)
        self.assertEqual((self.manager._leased, self.manager._octets, self.manager._groups), (0, 0, {}))


class ImpatientTests(Tests):
    """A queue that tries again after seconds."""

    backoff = Backoff(first=2, jitter=0)

    def test_on_time(self) -> None:
        """What is put off is tried when it is due, not when the store is next looked into anyway."""
        for answer, address in ((greylisted, "a@one.example"), (dead, "b@two.example")):
            self.agent.answer, self.agent.tried = answer, []
            id = self.submit(address)
            self.turn(1.9)
            self.assertEqual(len(self.agent.tried), 1)
            self.agent.answer = relayed
            self.turn(0.1)
            self.assertEqual(self.states(id), ["done"])


class ReportTests(Tests):
    """Who is told."""

    def test_failure(self) -> None:
        """A failure is reported to the sender, in the commit that records it, from the null address."""
        self.agent.answer = lambda lease: refused(lease) if lease.message.sender else relayed(lease)
        self.submit("a@one.example")
        (message,) = [kept.message for kept in self.store._kept.values() if not kept.message.sender]
        self.assertIn("ann@example.org", self.agent.tried)
        self.assertEqual(message.client, Client("daemon", "mx.example.org"))
        report = message.content.open().read(10**6)
        assert isinstance(report, bytes)
        self.assertIn(b"Action: failed", report)
        self.assertIn(b"Subject: x", report)

    def test_no_room_for_the_report(self) -> None:
        """A failure whose report finds no room is recorded when there is room for both, and is not forgotten meanwhile."""
        sink = self.store.sink
        self.agent.answer = None
        id = self.submit("a@one.example")
        self.store.sink = self.full_sink  # type: ignore[method-assign]
        self.agent.finish(refused)
        self.turn(59)
        self.assertEqual(self.states(id), ["leased"])
        self.store.sink = sink  # type: ignore[method-assign]
        self.agent.answer = relayed
        self.turn(1)
        self.assertEqual(self.states(id), ["done"])
        self.assertIn("ann@example.org", self.agent.tried)

    def full_sink(self) -> Any:
        """A store without room for a body."""
        raise StoreFull("no room")

    def test_only_the_failed_are_named(self) -> None:
        """A report names whom it is about and nobody else."""
        self.agent.answer = lambda lease: [*refused(lease)[:1], *relayed(lease)[1:]]
        self.submit("a@one.example", "b@one.example")
        report = self.bodies()[1]
        self.assertIn(b"a@one.example", report)
        self.assertNotIn(b"b@one.example", report)

    def test_delay_is_told_once(self) -> None:
        """After four hours the sender is told of the delay, once."""
        self.agent.answer = lambda lease: greylisted(lease) if lease.message.sender else relayed(lease)
        self.submit("a@one.example")
        self.turn(3 * 3600)
        self.assertEqual(len(self.store._kept), 1)
        self.turn(2 * DAY)
        self.assertEqual(len(self.store._kept), 2)
        self.assertIn(b"Action: delayed", self.bodies()[1])

    def test_given_up(self) -> None:
        """After five days it fails, and the report says so and why."""
        self.agent.answer = lambda lease: greylisted(lease) if lease.message.sender else relayed(lease)
        id = self.submit("a@one.example")
        self.turn(5 * DAY + 1)
        self.assertEqual(self.states(id), ["done"])
        self.assertIn(b"Status: 4.4.7", self.bodies()[2])
        self.assertIn(b"451 later", self.bodies()[2])

    def test_given_up_although_never_tried(self) -> None:
        """Mail behind a host that is dead for five days fails too, and is not forgotten."""
        self.agent.answer = lambda lease: dead(lease) if lease.message.sender else relayed(lease)
        ids = [self.submit("a@one.example"), self.submit("b@one.example")]
        self.turn(5 * DAY + 4 * 3600 + 1)
        self.assertEqual([self.states(id) for id in ids], [["done"], ["done"]])

    def test_bounce_of_a_bounce(self) -> None:
        """A report that cannot be delivered goes to the administrator; one to him that cannot is dropped."""
        self.agent.answer = refused
        self.submit("a@one.example")
        self.turn()
        self.turn()
        self.assertEqual(self.agent.tried, ["a@one.example", "ann@example.org", "admin@example.org"])
        self.turn(DAY)
        self.assertEqual(len(self.store._kept), 3)


class StopTests(Tests):
    """The end."""

    def test_what_is_under_way_is_settled(self) -> None:
        """A stop begins nothing new, and waits for what is under way to be in the store."""
        self.agent.answer = None
        first = self.submit("a@one.example")
        stopped = self.manager.stop()
        second = self.submit("b@one.example")
        self.assertNoResult(stopped)
        self.agent.finish(relayed)
        self.successResultOf(stopped)
        self.assertEqual((self.states(first), self.states(second)), (["done"], ["queued"]))
        self.turn(60)
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.getTime() > 61], [])

    def test_outcomes_outlast_a_full_disk(self) -> None:
        """Outcomes that find the disk full are kept and tried again."""
        self.agent.answer = None
        id = self.submit("a@one.example")
        self.store.trouble = StoreFull("full")
        self.agent.finish(relayed)
        self.assertEqual(self.states(id), ["leased"])
        self.store.trouble = None
        self.turn(1)
        self.assertEqual(self.states(id), ["done"])

    def test_a_broken_disk(self) -> None:
        """A broken disk ends the daemon elsewhere; here it is borne in silence."""
        self.agent.answer = None
        self.submit("a@one.example")
        self.store.trouble = StoreBroken("EIO")
        self.agent.finish(dead)
        self.turn(60)
        self.assertEqual(self.flushLoggedErrors(), [])
