"""Tests of the agent "smtp": from a lease to outcomes, with hosts that the test plays."""

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import TCPTimedOutError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.vmtpd.delivery.world import (
    BODY,
    HEAD,
    BadReader,
    Call,
    LateReader,
    Names,
    Reader,
    World,
    inline,
    lease,
    route,
)
from vmtpd.delivery.smtp import SMTPDelivery
from vmtpd.interfaces import IDelivery, IReader
from vmtpd.mail import Hop, Lease, Message, Outcome, Route

FIRST = Hop("first.example", 25, "none")
SECOND = Hop("second.example", 2525, "none")
TAKEN = b"250 ok\r\n250 ok\r\n354 go\r\n"
COMMANDS = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"


def unchanged(message: Message, route: Route) -> tuple[str, Callable[[], IReader], int]:
    """A rewriting that nobody asks for."""
    raise AssertionError("no rewriting was asked for")


class Agent(SynchronousTestCase):
    """One agent and the world around it."""

    def setUp(self) -> None:
        self.world = World()
        names = Names(mx=["192.0.2.1"], first=["192.0.2.1"], second=["192.0.2.2"], none=[])
        self.agent = SMTPDelivery(self.world, names, "me.example", inline, unchanged, idle=30, messages=3)  # type: ignore[arg-type]

    def deliver(
        self, *hosts: Hop, to: tuple[str, ...] = ("bob@example.net",), **more: object
    ) -> Deferred[list[Outcome]]:
        """Begin to deliver a message."""
        return self.agent.deliver(lease(*to), route(*hosts, **more))

    def password(self, octets: bytes = b"secret\n") -> str:
        """A password file."""
        path = Path(self.mktemp())
        path.write_bytes(octets)
        return str(path)

    def relay(self, call: Call) -> None:
        """Take the one message that is being sent over a connection."""
        call.says(TAKEN)
        call.says(b"250 2.0.0 queued\r\n")

    def outcome(self, done: Deferred[list[Outcome]]) -> Outcome:
        """The only outcome."""
        (outcome,) = self.successResultOf(done)
        return outcome


class Delivering(Agent):
    """What becomes of a message."""

    def test_interface(self) -> None:
        """The agent is an IDelivery."""
        verifyObject(IDelivery, self.agent)

    def test_relayed(self) -> None:
        """A message that the host takes is relayed: head and body arrive as stored, and the outcome tells who said what."""
        done = self.deliver()
        call = self.world.call().greet()
        self.assertEqual((call.host, call.port, call.timeout), ("192.0.2.1", 25, 30))
        call.says(TAKEN)
        self.assertEqual(call.heard(), HEAD + BODY + b".\r\n")
        call.says(b"250 2.0.0 queued\r\n")
        self.assertEqual(
            self.outcome(done), Outcome(1, "relayed", "2.0.0", "250 2.0.0 queued", "mx.example[192.0.2.1]:25", "")
        )

    def test_commands(self) -> None:
        """Sender and recipient of the envelope stand in MAIL and RCPT, or the route's recipient in their stead."""
        self.deliver()
        call = self.world.call().accept()
        call.says(b"220 relay\r\n250-relay\r\n250 PIPELINING\r\n"[:11])
        self.assertEqual(call.heard(), b"EHLO me.example\r\n")
        call.says(b"250-relay\r\n250 PIPELINING\r\n")
        self.assertEqual(call.heard(), COMMANDS)
        self.deliver(recipient="carol@example.com")
        other = self.world.call().accept()
        other.says(b"220 relay\r\n")
        other.says(b"250-relay\r\n250 PIPELINING\r\n")
        self.assertIn(b"RCPT TO:<carol@example.com>", other.heard())

    def test_each_recipient(self) -> None:
        """Each recipient has an outcome of his own."""
        done = self.deliver(to=("a@x.example", "b@x.example", "c@x.example"))
        call = self.world.call().greet()
        call.says(b"250 ok\r\n250 ok\r\n550 5.1.1 who\r\n450 4.2.1 later\r\n354 go\r\n")
        call.says(b"250 ok\r\n")
        self.assertEqual(
            [(o.n, o.action, o.status, o.scope) for o in self.successResultOf(done)],
            [
                (1, "relayed", "2.0.0", "recipient"),
                (2, "failed", "5.1.1", "recipient"),
                (3, "delayed", "4.2.1", "recipient"),
            ],
        )

    def test_refused_message(self) -> None:
        """A message that is refused as a whole fails or is delayed for all, and no other host is asked."""
        for reply, action in ((b"554 5.6.0 no\r\n", "failed"), (b"451 4.3.0 later\r\n", "delayed")):
            self.setUp()
            done = self.deliver(FIRST, SECOND)
            call = self.world.call().greet()
            call.says(TAKEN)
            call.says(reply)
            outcome = self.outcome(done)
            self.assertEqual((outcome.action, outcome.scope), (action, "message"))
            self.assertEqual(len(self.world.dialled), 1)

    def test_large_content_from_the_disk(self) -> None:
        """A content that comes later arrives whole."""
        body = BODY * 4000
        done = self.agent.deliver(lease("bob@example.net", body=body, kind=LateReader), route())
        call = self.world.call().greet()
        call.says(TAKEN)
        self.assertEqual(call.heard(), HEAD + body + b".\r\n")
        call.says(b"250 ok\r\n")
        self.assertEqual(self.outcome(done).action, "relayed")

    def test_disk_trouble(self) -> None:
        """A content that cannot be read delays its message; the content is closed, and the session is not used again."""
        which = lease("bob@example.net", kind=BadReader)
        done = self.agent.deliver(which, route())
        call = self.world.call().greet()
        call.says(TAKEN)
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.3.0"))
        self.assertFalse(call.open)
        self.assertTrue(all(reader.closed for reader in which.message.content.readers))  # type: ignore[attr-defined]

    def test_bare_line_feed(self) -> None:
        """A content with a bare line feed fails, and the connection that has begun it is closed."""
        done = self.agent.deliver(lease("bob@example.net", body=b"a\nb\r\n"), route())
        call = self.world.call().greet()
        call.says(TAKEN)
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("failed", "5.6.0", "message"))
        self.assertFalse(call.open)

    def test_unsendable_recipient(self) -> None:
        """An address with a line end fails alone."""
        done = self.deliver(to=("a@x.example\r\nQUIT", "bob@example.net"))
        call = self.world.call().greet()
        self.relay(call)
        self.assertEqual([o.action for o in self.successResultOf(done)], ["failed", "relayed"])

    def test_rewriting(self) -> None:
        """A route with a sender has its message rewritten."""

        def rewrite(message: Message, which: Route) -> tuple[str, Callable[[], IReader], int]:
            return which.sender, lambda: Reader(b"other\r\n"), 7

        self.agent = SMTPDelivery(self.world, Names(mx=["192.0.2.1"]), "me.example", inline, rewrite)  # type: ignore[arg-type]
        self.deliver(sender="office@example.org")
        call = self.world.call().accept()
        call.says(b"220 relay\r\n")
        call.says(b"250-relay\r\n250 PIPELINING\r\n")
        self.assertIn(b"MAIL FROM:<office@example.org>", call.heard())
        call.says(TAKEN)
        self.assertEqual(call.heard(), b"other\r\n.\r\n")

    def test_too_many_recipients(self) -> None:
        """Recipients that are too many for one transaction go in another at once; where none is taken they are delayed."""
        done = self.deliver(to=("a@x.example", "b@x.example"))
        call = self.world.call().greet()
        call.says(b"250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n354 go\r\n")
        call.heard()
        call.says(b"250 first\r\n")
        self.assertEqual(call.heard(), b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
        call.says(b"250 ok\r\n552 too many\r\n503 no\r\n")
        self.assertEqual(
            [(o.action, o.status) for o in self.successResultOf(done)], [("relayed", "2.0.0"), ("delayed", "4.5.3")]
        )

    def test_error_of_ours(self) -> None:
        """An error of the daemon is logged and delays the mail."""
        broken = Lease(lease().message, lease("bob@example.net").recipients)
        broken.message.content.open = None  # type: ignore[method-assign, assignment]
        done = self.agent.deliver(broken, route())
        call = self.world.call().accept()
        call.says(b"220 relay\r\n")
        call.says(b"250 relay\r\n")
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.3.0"))
        self.assertTrue(call.heard().endswith(b"QUIT\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Hosts(Agent):
    """Which host is asked, and when the next one is."""

    def test_next_host(self) -> None:
        """A host that refuses the connection is followed by the next, and tried last for a minute."""
        done = self.deliver(FIRST, SECOND)
        self.world.call().refuse()
        call = self.world.call().greet()
        self.relay(call)
        self.assertEqual(self.outcome(done).host, "second.example[192.0.2.2]:2525")
        done = self.deliver(FIRST, SECOND)
        self.relay(call)
        self.assertEqual(self.outcome(done).host, "second.example[192.0.2.2]:2525")
        self.assertEqual(len(self.world.dialled), 2)
        self.world.advance(61)
        self.deliver(FIRST, SECOND)
        self.assertEqual(self.world.call().host, "192.0.2.1")

    def test_trouble_with_all(self) -> None:
        """Where no host can be reached, mail is delayed with what the last one gave."""
        cases: list[tuple[Exception | None, str]] = [(None, "4.4.1"), (TCPTimedOutError(), "4.4.2")]
        for error, status in cases:
            self.setUp()
            done = self.deliver(FIRST, SECOND)
            self.world.call().refuse()
            self.world.call().refuse(error)
            outcome = self.outcome(done)
            self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", status, "host"))
            self.assertEqual(outcome.host, "second.example[192.0.2.2]:2525")

    def test_unknown_host(self) -> None:
        """A name that does not exist, or has no address, delays: names are configured, and can be put right."""
        for host in ("unknown.example", "none.example"):
            outcome = self.outcome(self.deliver(Hop(host, 25, "none")))
            self.assertEqual((outcome.action, outcome.status, outcome.host), ("delayed", "4.4.3", f"{host}:25"))

    def test_no_host(self) -> None:
        """A route without a host delays."""
        done = self.agent.deliver(lease("bob@example.net"), Route("out", "smtp", "dest", "a test"))
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.4.4"))

    def test_addresses_in_turn(self) -> None:
        """Addresses are tried in turn, IPv6 and IPv4, five at most."""
        six, four = [f"2001:db8::{n}" for n in range(1, 6)], ["192.0.2.1", "192.0.2.2"]
        self.agent = SMTPDelivery(self.world, Names(mx=six + four), "me.example", inline, unchanged)  # type: ignore[arg-type]
        done = self.deliver()
        while self.noResult(done):
            self.world.call().refuse()
        self.assertEqual(
            self.world.dialled,
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"],
        )

    def noResult(self, done: Deferred[list[Outcome]]) -> bool:
        """Whether the delivery is still under way."""
        return not done.called

    def test_refusing_host(self) -> None:
        """A host that refuses us, at the greeting or at EHLO, delays whatever its code, and the next one is asked."""
        for greeting in (b"554 5.7.1 go away\r\n", b"421 4.3.2 busy\r\n", b"HTTP/1.1 400 Bad\r\n"):
            self.setUp()
            done = self.deliver(FIRST, SECOND)
            first = self.world.call().accept()
            first.says(greeting)
            self.assertEqual(len(self.world.dialled), 2)
            self.world.call().refuse()
            outcome = self.outcome(done)
            self.assertEqual((outcome.action, outcome.scope), ("delayed", "host"))

    def test_login_wanted(self) -> None:
        """A host that wants a login before MAIL delays: a route can be put right, a bounce cannot be taken back."""
        done = self.deliver()
        self.world.call().greet().says(b"530 5.7.0 login first\r\n503 no\r\n503 no\r\n")
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.7.0", "host"))

    def test_cut_before_the_content(self) -> None:
        """A connection that is cut before the content was out sends those without a verdict to the next host."""
        done = self.deliver(FIRST, SECOND, to=("a@x.example", "b@x.example"))
        first = self.world.call().greet()
        first.says(b"250 ok\r\n550 5.1.1 who\r\n")
        first.goes()
        second = self.world.call()
        self.assertEqual(second.host, "192.0.2.2")
        second.accept()
        second.says(b"220 relay\r\n")
        second.says(b"250-relay\r\n250 PIPELINING\r\n")
        self.assertEqual(second.heard().split(b"DATA")[0].count(b"RCPT"), 1)
        self.relay(second)
        self.assertEqual([o.action for o in self.successResultOf(done)], ["failed", "relayed"])

    def test_cut_behind_the_content(self) -> None:
        """A connection that is cut behind the last octet delays, and no other host gets the message now."""
        done = self.deliver(FIRST, SECOND)
        first = self.world.call().greet()
        first.says(TAKEN)
        first.goes()
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.4.2", "message"))
        self.assertIn("may have arrived", outcome.reply)
        self.assertEqual(len(self.world.dialled), 1)


class Keeping(Agent):
    """Connections that are kept open."""

    def first(self) -> Call:
        """The connection over which a first message went."""
        done = self.deliver()
        call = self.world.call().greet()
        self.relay(call)
        self.successResultOf(done)
        call.heard()
        return call

    def test_reuse(self) -> None:
        """The next message takes the same connection, up to the bound on messages."""
        call = self.first()
        for _ in range(2):
            done = self.deliver()
            self.assertEqual(call.heard(), COMMANDS)
            self.relay(call)
            self.assertEqual(self.outcome(done).action, "relayed")
            last = call.heard()
        self.assertEqual(len(self.world.dialled), 1)
        self.assertTrue(last.endswith(b"QUIT\r\n"))
        self.deliver()
        self.assertEqual(len(self.world.dialled), 2)

    def test_not_for_another_login(self) -> None:
        """A connection that was opened for one login is not used for another."""
        self.first()
        self.deliver(user="ann", password_file=self.password())
        self.assertEqual(len(self.world.dialled), 2)

    def test_idle(self) -> None:
        """A connection that nobody needs for a while is closed with QUIT, and leaves no timer."""
        call = self.first()
        self.world.advance(30)
        self.assertEqual(call.heard(), b"QUIT\r\n")
        call.says(b"221 bye\r\n")
        self.assertFalse(call.open)
        self.world.advance(300)
        self.assertEqual(self.world.getDelayedCalls(), [])

    def test_gone_while_idle(self) -> None:
        """A connection that the host closes meanwhile is not taken."""
        self.first().goes()
        self.deliver()
        self.assertEqual(len(self.world.dialled), 2)

    def test_stale(self) -> None:
        """A kept connection that dies, or says 421, before any reply is replaced by a fresh one, once."""
        ends: list[Callable[[Call], None]] = [Call.goes, lambda call: call.says(b"421 4.4.2 idle\r\n")]
        for end in ends:
            self.setUp()
            call = self.first()
            done = self.deliver()
            end(call)
            self.assertNoResult(done)
            fresh = self.world.call().greet()
            end(fresh)
            self.assertEqual(self.outcome(done).action, "delayed")
            self.assertEqual(len(self.world.dialled), 2)

    def test_close(self) -> None:
        """To close the agent closes what is idle; what is under way ends by itself and is closed then."""
        idle = self.first()
        busy = self.deliver(SECOND)
        call = self.world.call().greet()
        closed = self.agent.close()
        self.assertEqual(idle.heard(), b"QUIT\r\n")
        idle.says(b"221 bye\r\n")
        self.successResultOf(closed)
        self.relay(call)
        self.assertEqual(self.outcome(busy).action, "relayed")
        self.assertTrue(call.heard().endswith(b"QUIT\r\n"))


class Secured(Agent):
    """TLS and logins."""

    STARTTLS = b"250-relay\r\n250 STARTTLS\r\n"

    def test_required(self) -> None:
        """Where TLS must be and is not offered, mail is delayed, and nothing of it was sent."""
        done = self.deliver(Hop("mx.example", 25, "required"))
        call = self.world.call().accept()
        call.says(b"220 relay\r\n")
        call.says(b"250 relay\r\n")
        self.assertNotIn(b"MAIL", call.heard())
        call.says(b"221 bye\r\n")
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.7.4", "host"))

    def test_unverified_is_said(self) -> None:
        """The outcome tells the version, and that nobody looked at the certificate."""
        done = self.deliver(Hop("mx.example", 25, "opportunistic"))
        call = self.world.call().greet(self.STARTTLS)
        call.says(b"220 go\r\n")
        call.shakes_hands()
        call.says(b"250-relay\r\n250 PIPELINING\r\n")
        self.relay(call)
        self.assertEqual(self.outcome(done).tls, "TLSv1.3 unverified")

    def test_falling_back_to_clear(self) -> None:
        """Where TLS is opportunistic and its handshake fails, a new connection to the same address goes in clear."""
        done = self.deliver(Hop("mx.example", 25, "opportunistic"))
        call = self.world.call().greet(self.STARTTLS)
        call.says(b"220 go\r\n")
        call.goes()
        clear = self.world.call().greet(b"250-relay\r\n250-STARTTLS\r\n250 PIPELINING\r\n")
        self.relay(clear)
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.tls), ("relayed", ""))

    def test_no_falling_back(self) -> None:
        """Where TLS is required and its handshake fails, mail is delayed."""
        for tls in ("required", "verified"):
            self.setUp()
            done = self.deliver(Hop("mx.example", 25, "required" if tls == "required" else "verified"))
            call = self.world.call().greet(self.STARTTLS)
            call.says(b"220 go\r\n")
            call.goes()
            outcome = self.outcome(done)
            self.assertEqual((outcome.action, outcome.status), ("delayed", "4.7.5"))
            self.assertEqual(len(self.world.dialled), 1)

    def login(self, reply: bytes, octets: bytes = b"secret\n") -> tuple[Deferred[list[Outcome]], Call]:
        """Deliver over TLS with a login that is answered so."""
        hop = Hop("mx.example", 465, "required", implicit=True)
        done = self.deliver(hop, user="ann", password_file=self.password(octets))
        call = self.world.call().accept()
        call.shakes_hands()
        call.says(b"220 relay\r\n")
        call.says(b"250-relay\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
        return done, call

    def test_login(self) -> None:
        """The password is the file's content without its line end."""
        for octets in (b"secret", b"secret\n", b"secret\r\n"):
            self.setUp()
            done, call = self.login(b"235 ok\r\n", octets)
            self.assertIn(b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", call.heard())
            call.says(b"235 ok\r\n")
            self.relay(call)
            self.assertEqual(self.outcome(done).action, "relayed")

    def test_refused_login(self) -> None:
        """A login that is refused delays, never fails, is not repeated at another address, and tells no password."""
        done, call = self.login(b"")
        call.says(b"535 5.7.8 bad\r\n")
        call.says(b"221 bye\r\n")
        outcome = self.outcome(done)
        self.assertEqual(
            outcome[1:7],
            ("delayed", "4.7.8", "535 5.7.8 bad", "mx.example[192.0.2.1]:465", "TLSv1.3 unverified", "host"),
        )

    def test_never_in_clear(self) -> None:
        """A login is never sent without TLS: the mail is delayed, with the reason."""
        done = self.deliver(user="ann", password_file=self.password())
        call = self.world.call().accept()
        call.says(b"220 relay\r\n")
        call.says(b"250-relay\r\n250 AUTH PLAIN\r\n")
        self.assertNotIn(b"AUTH", call.heard())
        outcome = self.outcome(done)
        self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.7.0", "host"))

    def test_missing_files(self) -> None:
        """A password or a file of authorities that cannot be read delays, with the reason and without the path."""
        done = self.deliver(
            Hop("mx.example", 465, "required", implicit=True), user="ann", password_file="/nonexistent/p"
        )
        call = self.world.call().accept()
        call.shakes_hands()
        call.says(b"220 relay\r\n")
        call.says(b"250-relay\r\n250 AUTH PLAIN\r\n")
        call.says(b"221 bye\r\n")
        other = self.deliver(Hop("mx.example", 25, "verified"), ca="/nonexistent/ca")
        for each in (done, other):
            outcome = self.outcome(each)
            self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.3.5", "host"))
            self.assertNotIn("nonexistent", outcome.reply)
