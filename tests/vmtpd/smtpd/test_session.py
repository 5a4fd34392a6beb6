"""Sessions: from the client's octets to a submission, and from the store's word to the 250."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.smtpd.house import TestHouse, stored
from vmtp.server import Limits
from vmtpd.interfaces import StoreBroken, StoreFull
from vmtpd.mail import Client
from vmtpd.smtpd.session import Session

LAN = (ip_network("192.168.1.0/24"), ip_network("fd00::/64"))
MESSAGE = (
    b"EHLO nas\r\nMAIL FROM:<ann@example.org> BODY=8BITMIME SIZE=9\r\nRCPT TO:<friend@example.net>\r\nDATA\r\n"
    b"Subject: x\r\n\r\nhello\r\n.\r\n"
)


class Tests(SynchronousTestCase):
    """What the tests of sessions share."""

    def setUp(self) -> None:
        self.house = TestHouse()

    def connect(self, host: str = "192.168.1.9", **listening: Any) -> tuple[Session, StringTransport]:
        """A client on the local network."""
        return self.house.connect(self.house.door(LAN, **listening), host)

    def said(self, transport: StringTransport) -> list[str]:
        """The last lines of the replies that came since."""
        lines = transport.value().decode().split("\r\n")[:-1]
        transport.clear()
        return [line for line in lines if line[3] == " "]

    def lose(self, session: Session) -> None:
        """The client goes away."""
        session.connectionLost(Failure(ConnectionDone()))


class SubmissionTests(Tests):
    """What a session hands over."""

    def test_a_message(self) -> None:
        """A submission says who sent what to whom, with our trace on top and the content untouched."""
        session, _ = self.connect()
        session.dataReceived(MESSAGE)
        (submission,) = self.house.submissions.taken
        self.assertEqual(submission.client, Client("address", "192.168.1.9"))
        self.assertEqual(submission.envelope.sender, "ann@example.org")
        self.assertEqual([r.address for r in submission.envelope.recipients], ["friend@example.net"])
        self.assertEqual(submission.envelope.params, {"BODY": "8BITMIME"})
        self.assertEqual(self.house.submissions.bodies(), [b"Subject: x\r\n\r\nhello\r\n"])
        head = submission.head.decode()
        self.assertTrue(head.startswith("Received: from nas ([192.168.1.9])\r\n\tby mx.example.org with ESMTP id "))
        self.assertIn("for <friend@example.net>", head)
        self.assertIn("\r\nDate: ", head)
        self.assertIn("\r\nMessage-ID: <", head)
        self.assertIn("received client=192.168.1.9 hello=nas sender=<ann@example.org>", self.house.logged())

    def test_250_only_when_it_is_stored(self) -> None:
        """The client hears nothing until the store has the message."""
        self.house.submissions.at_once = False
        session, transport = self.connect()
        session.dataReceived(MESSAGE)
        self.assertTrue(self.said(transport)[-1].startswith("354"))
        self.house.submissions.waiting[0].callback(stored(self.house.submissions.taken[0]))
        self.assertRegex(self.said(transport)[0], "250 2.0.0 queued as [0-9a-z]{13}")

    def test_not_stored(self) -> None:
        """A full disk is 452, a broken one 451, and a fault of ours 451 too: never 250, never 5yz."""
        for error, reply in [
            (StoreFull("no room"), "452 4.3.1"),
            (StoreBroken("EIO"), "451 4.3.0"),
            (ZeroDivisionError(), "451 4.3.0"),
        ]:
            self.house.submissions.at_once = False
            session, transport = self.connect()
            session.dataReceived(MESSAGE)
            self.said(transport)
            self.house.submissions.waiting.pop().errback(error)
            self.assertTrue(self.said(transport)[0].startswith(reply))
            session.dataReceived(b"NOOP\r\n")
            self.assertEqual(self.said(transport), ["250 2.0.0 ok"])
            self.lose(session)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_client_goes_in_the_middle(self) -> None:
        """A message that was not finished is not kept."""
        session, _ = self.connect()
        session.dataReceived(MESSAGE[:-5])
        self.lose(session)
        self.assertEqual(self.house.submissions.taken, [])

    def test_client_goes_before_the_answer(self) -> None:
        """A message that was finished may be stored although nobody hears the 250; nothing goes wrong by it."""
        self.house.submissions.at_once = False
        session, transport = self.connect()
        session.dataReceived(MESSAGE)
        self.lose(session)
        transport.clear()
        self.house.submissions.waiting[0].callback(stored(self.house.submissions.taken[0]))
        self.assertEqual(transport.value(), b"")

    def test_a_loop(self) -> None:
        """A message that passed a hundred hosts is refused."""
        session, transport = self.house.connect(self.house.door(LAN, Limits()), "192.168.1.9")
        session.dataReceived(MESSAGE.replace(b"Subject: x\r\n", b"Received: x\r\n" * 101))
        self.assertTrue(self.said(transport)[-1].startswith("554 5.4.6"))
        self.assertEqual(self.house.submissions.taken, [])

    def test_text_without_header(self) -> None:
        """A device that sends bare text gets a header before it, and a blank line between."""
        session, _ = self.connect()
        session.dataReceived(MESSAGE.replace(b"Subject: x\r\n\r\nhello", b"paper jam"))
        (submission,) = self.house.submissions.taken
        self.assertTrue(submission.head.endswith(b"From: <ann@example.org>\r\n\r\n"))


class TrustTests(Tests):
    """Who may relay."""

    def ask(self, host: str, recipient: bytes, **listening: Any) -> str:
        """The answer to a recipient."""
        session, transport = self.connect(host, **listening)
        session.dataReceived(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<" + recipient + b">\r\n")
        answer = self.said(transport)[-1]
        self.lose(session)
        return answer

    def test_relay(self) -> None:
        """The local network relays; strangers only reach our own mailboxes."""
        self.assertEqual(self.ask("192.168.1.9", b"friend@example.net")[:3], "250")
        self.assertEqual(self.ask("fd00::5", b"friend@example.net")[:3], "250")
        self.assertEqual(self.ask("::ffff:192.168.1.9", b"friend@example.net")[:3], "250")
        self.assertEqual(self.ask("198.51.100.7", b"ann@example.org")[:3], "250")
        self.assertEqual(self.ask("198.51.100.7", b"nobody@example.org")[:9], "550 5.1.1")
        for recipient in [
            b"friend@example.net",
            b"friend%example.net@other.example",
            b'"friend@example.net"@other.example',
        ]:
            self.assertEqual(self.ask("198.51.100.7", recipient)[:9], "550 5.7.1")
        self.assertIn("relaying denied", self.house.logged())

    def test_inbound(self) -> None:
        """A listener for mail from outside relays for nobody, the local network included."""
        self.assertEqual(self.ask("192.168.1.9", b"friend@example.net", role="inbound")[:9], "550 5.7.1")
        self.assertEqual(self.ask("192.168.1.9", b"ann@example.org", role="inbound")[:3], "250")

    def test_submission(self) -> None:
        """A listener for logins takes nothing without one."""
        session, transport = self.connect(role="submission")
        session.dataReceived(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\n")
        self.assertEqual(self.said(transport)[-1][:9], "530 5.7.0")


class LoginTests(SynchronousTestCase):
    """Sessions with logins."""

    def login(self, answer: Deferred[str | None], host: str = "198.51.100.7") -> tuple[Session, StringTransport]:
        """A session that has sent credentials."""
        house = self.house = TestHouse(check=lambda name, password: answer)
        session, transport = house.connect(
            house.door(LAN, role="submission", implicit=True, mechanisms=("PLAIN",)), host
        )
        session.facts.tls = "TLSv1.3"
        session.dataReceived(
            b"EHLO x\r\nAUTH PLAIN AEFubgBzZWNyZXQ=\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
        )
        return session, transport

    def test_right(self) -> None:
        """Who logged in relays, and is named by the login, not by what was typed or where from."""
        answer: Deferred[str | None] = Deferred()
        session, transport = self.login(answer)
        transport.clear()
        answer.callback("ann")
        lines = transport.value().decode().splitlines()
        self.assertEqual([line[:3] for line in lines], ["235", "250", "250"])
        session.dataReceived(b"DATA\r\nSubject: x\r\n\r\n.\r\n")
        (submission,) = self.house.submissions.taken
        self.assertEqual(submission.client, Client("login", "ann"))
        self.assertIn(b"with ESMTPSA id", submission.head)

    def test_wrong(self) -> None:
        """A wrong password is 535, and the log holds the name but never the password."""
        answer: Deferred[str | None] = Deferred()
        _, transport = self.login(answer)
        transport.clear()
        answer.callback(None)
        self.assertEqual(transport.value()[:9], b"535 5.7.8")
        self.assertIn("user=Ann", self.house.logged())
        self.assertNotIn("secret", self.house.logged())

    def test_not_now(self) -> None:
        """Where a login cannot be checked the client is asked to come again."""
        _, transport = self.login(fail(OSError("busy")))
        self.assertIn(b"454 4.7.0", transport.value())


class BoundTests(Tests):
    """What a client may cost."""

    def test_connections_of_one_client(self) -> None:
        """One client gets so many sessions and no more; when one ends there is room again."""
        sessions = [self.connect() for _ in range(4)]
        self.assertEqual([t.value()[:3] for _, t in sessions], [b"220", b"220", b"220", b"421"])
        self.assertTrue(sessions[3][1].disconnecting)
        self.lose(sessions[3][0])
        self.lose(sessions[0][0])
        self.assertEqual(self.connect()[1].value()[:3], b"220")
        self.assertEqual(self.house.sessions.open, 3)

    def test_silence(self) -> None:
        """A client that says nothing is told and left; one that does not even read is hung up on."""
        session, transport = self.connect()
        transport.clear()
        self.house.clock.advance(299)
        self.assertEqual(transport.value(), b"")
        self.house.clock.advance(1)
        self.assertEqual(self.said(transport), ["421 4.4.2 nothing came for too long"])
        self.assertTrue(transport.disconnecting)
        self.house.clock.advance(10)
        self.assertTrue(transport.disconnected)
        self.lose(session)
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_our_own_slowness_is_not_the_clients(self) -> None:
        """While we store a message the client is not timed out."""
        self.house.submissions.at_once = False
        session, transport = self.connect()
        session.dataReceived(MESSAGE)
        transport.clear()
        self.house.clock.advance(301)
        self.assertEqual(transport.value(), b"")
        self.house.submissions.waiting[0].callback(stored(self.house.submissions.taken[0]))
        self.assertEqual(self.said(transport)[0][:3], "250")

    def test_a_client_that_does_not_read(self) -> None:
        """When replies pile up at a client, no more of its commands are read."""
        session, transport = self.connect()
        session.pauseProducing()
        self.assertEqual(transport.producerState, "paused")
        session.resumeProducing()
        self.assertEqual(transport.producerState, "producing")

    def test_a_client_that_never_reads(self) -> None:
        """One that does not even read the farewell is cut off all the same."""
        session, transport = self.connect()
        session.pauseProducing()
        self.house.clock.advance(300)
        self.assertTrue(transport.disconnecting)
        self.house.clock.advance(10)
        self.assertTrue(transport.disconnected)
        self.lose(session)
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_a_slow_disk(self) -> None:
        """While the disk is behind with a body, no more of it is read."""
        waiting: Deferred[None] = Deferred()
        session, transport = self.connect()
        session.dataReceived(MESSAGE[: MESSAGE.index(b"Subject")])
        transaction = session._transaction
        assert transaction is not None and transaction.sink is not None
        self.patch(transaction.sink, "write", lambda data: waiting)
        session.dataReceived(b"Subject: x\r\n\r\n")
        self.assertEqual(transport.producerState, "paused")
        waiting.errback(StoreFull("no room"))
        self.assertEqual(transport.producerState, "producing")
        session.dataReceived(b".\r\n")
        self.assertEqual(self.said(transport)[-1][:9], "452 4.3.1")
        self.assertEqual(self.house.submissions.taken, [])


class DoorTests(Tests):
    """A listener at its end."""

    def test_close(self) -> None:
        """At a stop, idle clients are told to go, a message under way is finished, and then the door is closed."""
        door = self.house.door(LAN)
        idle, idle_transport = self.house.connect(door, "192.168.1.9")
        busy, busy_transport = self.house.connect(door, "192.168.1.9")
        busy.dataReceived(MESSAGE[:-5])
        busy_transport.clear()
        closed = door.close()
        self.assertIn("421 4.3.2 going down, try again later", self.said(idle_transport))
        self.lose(idle)
        self.assertNoResult(closed)
        busy.dataReceived(MESSAGE[-5:])
        self.assertEqual([line[:3] for line in self.said(busy_transport)], ["250", "421"])
        self.lose(busy)
        self.successResultOf(closed)

    def test_abort(self) -> None:
        """Who does not end in time is cut off, and was promised nothing."""
        door = self.house.door(LAN)
        session, transport = self.house.connect(door, "192.168.1.9")
        session.dataReceived(MESSAGE[:-5])
        closed = door.close()
        door.abort()
        self.assertTrue(transport.disconnected)
        self.lose(session)
        self.successResultOf(closed)

    def test_unix_socket(self) -> None:
        """Who may open our unix socket is trusted: the permissions of its folder decide that."""
        session = self.house.door(LAN).buildProtocol(None)
        assert isinstance(session, Session)
        self.assertTrue(session.facts.trusted)


class Unused(Tests):
    """The base class."""

    def test_its_parser_is_never_used(self) -> None:
        """No line reaches the parser that Twisted's ESMTP brings."""
        session, _ = self.connect()
        self.assertRaises(AssertionError, session.lineReceived, b"QUIT")
