"""Tests of the Twisted transport: octets, time and flow, without a network."""

import io

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from vmtp.client import steps
from vmtp.client.steps import SendResult
from vmtp.envelope import Envelope, Recipient
from vmtp.errors import ConnectionClosed, TimedOut, TLSFailed
from vmtp.replies import Reply
from vmtp.transports.tx import Connection

ENVELOPE = Envelope("a@b.example", (Recipient("ann@d.example"),))
COMMANDS = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<ann@d.example>\r\nDATA\r\n"


class Transport(StringTransport):
    """A transport that can be aborted, and remembers its handshakes."""

    def __init__(self) -> None:
        super().__init__()
        self.options: list[object] = []
        self.aborted = False

    def abortConnection(self) -> None:
        """Go at once."""
        self.aborted = True

    def startTLS(self, options: object) -> None:
        """Begin a handshake that a test completes."""
        self.options.append(options)

    def getHandle(self) -> "Transport":
        """What a handshake brought can be asked here."""
        return self

    def get_protocol_version_name(self) -> str:
        """As an OpenSSL connection says it."""
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        """As an OpenSSL connection says it."""
        return "TLS_AES_128_GCM_SHA256"


class Running(SynchronousTestCase):
    """One procedure after another over one connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.connection = Connection(self.clock, object())  # type: ignore[arg-type]
        self.lost: list[Connection] = []
        self.connection.onLost = self.lost.append
        self.connection.makeConnection(self.transport)

    def connect(self, ehlo: bytes = b"250-relay\r\n250 PIPELINING\r\n") -> None:
        """Greeting and EHLO."""
        done = self.connection.run(steps.connect(self.connection.engine, "me.example", "none"))
        self.connection.dataReceived(b"220 relay\r\n")
        self.connection.dataReceived(ehlo)
        self.successResultOf(done)
        self.transport.clear()

    def send(self, content: bytes = b"text\r\n") -> Deferred[SendResult]:
        """Begin to send."""
        return self.connection.run(steps.send(self.connection.engine, ENVELOPE, io.BytesIO(content)))

    def lose(self, reason: Exception | None = None) -> None:
        """The connection is gone."""
        self.connection.connectionLost(Failure(reason or ConnectionDone()))

    def test_interfaces(self) -> None:
        """The connection is what Twisted asks for."""
        verifyObject(IHandshakeListener, self.connection)
        verifyObject(IPushProducer, self.connection)

    def test_message(self) -> None:
        """A message goes over, and the next one after it."""
        self.connect()
        for _ in range(2):
            done = self.send()
            self.assertEqual(self.transport.value(), COMMANDS)
            self.transport.clear()
            self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
            self.assertEqual(self.transport.value(), b"text\r\n.\r\n")
            self.transport.clear()
            self.connection.dataReceived(b"250 ok\r\n")
            self.assertEqual(self.successResultOf(done).replies, (Reply(250, "", "ok"),))
        self.assertTrue(self.connection.usable)

    def test_one_at_a_time(self) -> None:
        """A second procedure while one runs is an error of the caller."""
        self.connect()
        self.send()
        with self.assertRaises(RuntimeError):
            self.send()

    def test_timeout(self) -> None:
        """A peer that says nothing for five minutes is left."""
        self.connect()
        done = self.send()
        self.clock.advance(299)
        self.assertNoResult(done)
        self.clock.advance(1)
        result = self.successResultOf(done)
        self.assertIsInstance(result.error, TimedOut)
        self.assertTrue(self.transport.aborted)

    def test_dripping_wins_no_time(self) -> None:
        """A peer that sends an octet now and then has no more time for its reply than another."""
        self.connect()
        done = self.send()
        for octet in b"250":
            self.clock.advance(90)
            self.connection.dataReceived(bytes([octet]))
        self.clock.advance(90)
        self.assertIsInstance(self.successResultOf(done).error, TimedOut)

    def test_patience_for_each_step(self) -> None:
        """The final reply may take ten minutes."""
        self.connect()
        done = self.send()
        self.clock.advance(200)
        self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.clock.advance(599)
        self.assertNoResult(done)
        self.clock.advance(1)
        error = self.successResultOf(done).error
        assert isinstance(error, TimedOut)
        self.assertTrue(error.ambiguous)

    def test_no_timer_is_left(self) -> None:
        """When the connection is gone, no timer is left."""
        self.connect()
        self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.lost, [self.connection])

    def test_lost(self) -> None:
        """A connection that is lost in a transaction is told by its result, with the reason."""
        self.connect()
        done = self.send()
        self.lose(ConnectionLost())
        error = self.successResultOf(done).error
        assert isinstance(error, ConnectionClosed)
        self.assertIn("lost", str(error))

    def test_lost_while_idle(self) -> None:
        """A 421 while nothing runs makes the connection unusable, and it is left."""
        self.connect()
        self.connection.dataReceived(b"421 idle for too long\r\n")
        self.assertFalse(self.connection.usable)
        self.assertTrue(self.transport.aborted)

    def test_flow(self) -> None:
        """A large content waits while the transport is full, and goes on when it is not; then the producer is taken off."""
        self.connect()
        content = (b"x" * 62 + b"\r\n") * 4096
        done = self.send(content)
        self.transport.clear()
        self.connection.pauseProducing()
        self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.assertIs(self.transport.producer, self.connection)
        self.assertEqual(len(self.transport.value()), 65536)
        self.connection.resumeProducing()
        self.assertEqual(self.transport.value(), content + b".\r\n")
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.successResultOf(done).replies, (Reply(250, "", "ok"),))
        self.assertIsNone(self.transport.producer)

    def test_peer_that_does_not_read(self) -> None:
        """A peer that reads no block for three minutes is left, and that is not ambiguous."""
        self.connect()
        done = self.send((b"x" * 62 + b"\r\n") * 4096)
        self.connection.pauseProducing()
        self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.clock.advance(180)
        error = self.successResultOf(done).error
        assert isinstance(error, TimedOut)
        self.assertFalse(error.ambiguous)

    def test_refused_while_paused(self) -> None:
        """A peer that refuses in the midst of a content that it does not read is heard."""
        self.connect()
        done = self.send((b"x" * 62 + b"\r\n") * 4096)
        self.connection.pauseProducing()
        self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.connection.dataReceived(b"552 5.3.4 too large\r\n")
        self.assertEqual(self.successResultOf(done).replies, (Reply(552, "5.3.4", "too large"),))

    def test_content_that_comes_later(self) -> None:
        """A content may give a Deferred, and its failure is the procedure's."""
        self.connect()

        class Slow:
            def __init__(self) -> None:
                self.asked: list[Deferred[bytes]] = []

            def read(self, n: int) -> Deferred[bytes]:
                self.asked.append(Deferred())
                return self.asked[-1]

        slow = Slow()
        done = self.connection.run(steps.send(self.connection.engine, ENVELOPE, slow))
        self.assertEqual(self.transport.value(), b"")
        slow.asked[0].callback(b"text\r\n")
        slow.asked[1].callback(b"")
        self.assertEqual(self.transport.value(), COMMANDS)
        self.connection.dataReceived(b"250 ok\r\n550 no\r\n503 no\r\n")
        self.assertEqual(self.successResultOf(done).replies, (Reply(550, "", "no"),))
        failing = Slow()
        done = self.connection.run(steps.send(self.connection.engine, ENVELOPE, failing))
        failing.asked[0].errback(OSError("disk"))
        self.failureResultOf(done, OSError)
        self.assertTrue(self.connection.usable)

    def test_many_pieces_at_hand(self) -> None:
        """A content of thousands of pieces that are all at hand does not nest."""
        self.connect()
        pieces = [b"line\r\n"] * 5000

        class Quick:
            def read(self, n: int) -> Deferred[bytes]:
                return succeed(pieces.pop() if pieces else b"")

        done = self.connection.run(steps.send(self.connection.engine, ENVELOPE, Quick()))
        self.connection.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.successResultOf(done).replies, (Reply(250, "", "ok"),))

    def test_lost_while_content_is_read(self) -> None:
        """A connection that is lost while content is read from the disk gives its error when the content comes."""
        self.connect()
        read: list[Deferred[bytes]] = [Deferred(), Deferred()]

        class Slow:
            def read(self, n: int) -> Deferred[bytes]:
                return read.pop(0)

        first, second = read
        done = self.connection.run(steps.send(self.connection.engine, ENVELOPE, Slow()))
        self.lose()
        first.callback(b"text\r\n")
        second.callback(b"")
        self.assertIsInstance(self.successResultOf(done).error, ConnectionClosed)

    def test_handshake(self) -> None:
        """TLS from the first octet: the greeting is waited for behind the handshake, which tells its version."""
        done = self.connection.run(steps.connect(self.connection.engine, "me.example", implicit=True))
        self.assertEqual(len(self.transport.options), 1)
        self.connection.handshakeCompleted()
        self.connection.dataReceived(b"220 relay\r\n")
        self.connection.dataReceived(b"250 relay\r\n")
        self.successResultOf(done)
        assert self.connection.engine.tls is not None
        self.assertEqual(self.connection.engine.tls.version, "TLSv1.3")

    def test_failed_handshake(self) -> None:
        """A handshake that fails, or never ends, is TLSFailed."""
        done = self.connection.run(steps.connect(self.connection.engine, "me.example", implicit=True))
        self.lose(ConnectionLost())
        self.failureResultOf(done, TLSFailed)
        self.setUp()
        done = self.connection.run(steps.connect(self.connection.engine, "me.example", implicit=True))
        self.clock.advance(60)
        self.failureResultOf(done, TLSFailed)

    def test_no_tls(self) -> None:
        """A connection without TLS options cannot make a handshake."""
        connection = Connection(self.clock)
        connection.makeConnection(self.transport)
        done = connection.run(steps.connect(connection.engine, "me.example", implicit=True))
        self.failureResultOf(done, TLSFailed)

    def test_close(self) -> None:
        """To close is to say QUIT, to wait for the reply, and to go."""
        self.connect()
        done = self.connection.close()
        self.assertEqual(self.transport.value(), b"QUIT\r\n")
        self.connection.dataReceived(b"221 bye\r\n")
        self.successResultOf(done)
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(10)  # a peer that never closes in its turn is left
        self.assertTrue(self.transport.aborted)

    def test_close_in_a_procedure(self) -> None:
        """To close while a procedure runs aborts it."""
        self.connect()
        sending = self.send()
        self.successResultOf(self.connection.close())
        self.lose(ConnectionLost())
        self.assertIsInstance(self.successResultOf(sending).error, ConnectionClosed)

    def test_cancel(self) -> None:
        """To cancel a procedure aborts the connection."""
        self.connect()
        done = self.send()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertFalse(self.connection.usable)
        self.assertTrue(self.transport.aborted)
