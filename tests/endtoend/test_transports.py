"""The three transports and the agent "smtp", over real sockets, to one small server."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.endtoend.relay import Relay, certificate
from tests.vmtpd.delivery.world import lease, route
from vmtp.client import SendResult, steps
from vmtp.envelope import Envelope, Recipient
from vmtp.errors import ConnectionClosed, TLSFailed
from vmtp.transports import aio, blocking, tx
from vmtpd.delivery.dial import IReactor
from vmtpd.delivery.smtp import SMTPDelivery
from vmtpd.interfaces import IReader, IResolver
from vmtpd.mail import TLS, Hop, Message, Outcome, Route

NAME = "relay.example"
SMALL = b"Subject: small\r\n\r\n.dot\r\n..\r\nend\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"." + b"x" * 70 + b"\r\n") * 60000
POSTURES: tuple[TLS, ...] = ("opportunistic", "required")
ENVELOPE = Envelope("ann@example.org", (Recipient("bob@example.org"), Recipient("nobody@example.org")))


class EndToEnd(SynchronousTestCase):
    """A server, and what must have come to it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.pem, key = certificate(self.folder, NAME)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.pem, key)

    def relay(self, tls: bool = False, implicit: bool = False) -> Relay:
        """A server that ends with the test."""
        server = Relay(self.context if tls else None, implicit)
        self.addCleanup(server.close)
        return server

    def trusting(self, pem: Path) -> ssl.SSLContext:
        """A client's context with one authority."""
        return ssl.create_default_context(cafile=str(pem))

    def judge(self, server: Relay, results: list[SendResult]) -> None:
        """Assert that both messages arrived as they were, for the one recipient that is taken."""
        for result in results:
            self.assertEqual([reply.code if reply else None for reply in result.replies], [250, 550])
        self.assertEqual(server.messages, [(["bob@example.org"], SMALL), (["bob@example.org"], LARGE)])
        self.assertEqual(server.sessions, 1)


class Blocking(EndToEnd):
    """Blocking sockets."""

    def converse(
        self, server: Relay, tls: steps.Posture, implicit: bool = False, pem: Path | None = None
    ) -> list[SendResult]:
        """Connect and send both messages."""
        context = self.trusting(pem or self.pem)
        with blocking.Connection("127.0.0.1", server.port, context=context, name=NAME) as connection:
            engine = connection.engine
            connection.run(steps.connect(engine, "me.example", tls, implicit=implicit))
            if engine.tls:
                connection.run(steps.login(engine, "ann", "secret"))
            return [
                connection.run(steps.send(engine, ENVELOPE, io.BytesIO(text), len(text))) for text in (SMALL, LARGE)
            ]

    def test_clear(self) -> None:
        """Two messages, a small and a large one, arrive over one connection in clear."""
        server = self.relay()
        self.judge(server, self.converse(server, "none"))

    def test_starttls(self) -> None:
        """The same behind STARTTLS, with the certificate checked, and a login."""
        server = self.relay(tls=True)
        self.judge(server, self.converse(server, "verified"))
        self.assertEqual(server.logins, ["PLAIN AGFubgBzZWNyZXQ="])

    def test_implicit(self) -> None:
        """The same with TLS from the first octet."""
        server = self.relay(tls=True, implicit=True)
        self.judge(server, self.converse(server, "verified", implicit=True))

    def test_wrong_certificate(self) -> None:
        """A certificate of another authority is refused, and nothing is sent."""
        other, _ = certificate(self.folder, "other.example")
        server = self.relay(tls=True)
        with self.assertRaises(TLSFailed):
            self.converse(server, "verified", pem=other)
        self.assertEqual((server.messages, server.logins), ([], []))

    def test_refused(self) -> None:
        """A port where nobody listens is ConnectionClosed, at once."""
        server = Relay()
        server.close()
        with self.assertRaises(ConnectionClosed) as caught:
            self.converse(server, "none")
        self.assertEqual(caught.exception.operation, "connect")


class AsyncIO(Blocking):
    """asyncio."""

    def converse(
        self, server: Relay, tls: steps.Posture, implicit: bool = False, pem: Path | None = None
    ) -> list[SendResult]:
        """Connect and send both messages."""
        return asyncio.run(self.converse_(server, tls, implicit, self.trusting(pem or self.pem)))

    async def converse_(
        self, server: Relay, tls: steps.Posture, implicit: bool, context: ssl.SSLContext
    ) -> list[SendResult]:
        """The same in a coroutine, with a content that is read by coroutines."""

        class Content:
            def __init__(self, octets: bytes) -> None:
                self.octets = io.BytesIO(octets)

            async def read(self, n: int) -> bytes:
                await asyncio.sleep(0)
                return self.octets.read(n)

        connection = await aio.open_connection("127.0.0.1", server.port, context=context, name=NAME)
        engine = connection.engine
        await connection.run(steps.connect(engine, "me.example", tls, implicit=implicit))
        if engine.tls:
            await connection.run(steps.login(engine, "ann", "secret"))
        results = [
            await connection.run(steps.send(engine, ENVELOPE, Content(text), len(text))) for text in (SMALL, LARGE)
        ]
        await connection.close()
        return results


@implementer(IResolver)
class Local:
    """Every host is this one."""

    def addresses(self, host: str) -> Deferred[list[str]]:
        return succeed(["127.0.0.1"])

    def mx(self, domain: str) -> Deferred[list[tuple[int, str]]]:
        return succeed([(0, domain)])


def unchanged(message: Message, which: Route) -> tuple[str, Callable[[], IReader], int]:
    """A rewriting that nobody asks for."""
    raise AssertionError("no rewriting was asked for")


class Twisted(EndToEnd, TestCase):
    """Twisted."""

    async def converse(
        self, server: Relay, tls: steps.Posture, implicit: bool = False, pem: Path | None = None
    ) -> list[SendResult]:
        """Connect and send both messages."""
        authority = Certificate.loadPEM((pem or self.pem).read_bytes())
        options = optionsForClientTLS(NAME, trustRoot=authority)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", server.port)
        connection = await connectProtocol(endpoint, tx.Connection(cast(IReactorTime, reactor), options, True))
        engine = connection.engine
        await connection.run(steps.connect(engine, "me.example", tls, implicit=implicit))
        if engine.tls:
            await connection.run(steps.login(engine, "ann", "secret"))
        results = [
            await connection.run(steps.send(engine, ENVELOPE, io.BytesIO(text), len(text))) for text in (SMALL, LARGE)
        ]
        await connection.close()
        return results

    async def test_clear(self) -> None:
        """Two messages, a small and a large one, arrive over one connection in clear."""
        server = self.relay()
        self.judge(server, await self.converse(server, "none"))

    async def test_starttls(self) -> None:
        """The same behind STARTTLS, with the certificate checked, and a login."""
        server = self.relay(tls=True)
        self.judge(server, await self.converse(server, "verified"))
        self.assertEqual(server.logins, ["PLAIN AGFubgBzZWNyZXQ="])

    async def test_implicit(self) -> None:
        """The same with TLS from the first octet."""
        server = self.relay(tls=True, implicit=True)
        self.judge(server, await self.converse(server, "verified", implicit=True))

    async def test_wrong_certificate(self) -> None:
        """A certificate of another authority is refused, and nothing is sent."""
        other, _ = certificate(self.folder, "other.example")
        server = self.relay(tls=True)
        with self.assertRaises(TLSFailed) as caught:
            await self.converse(server, "verified", pem=other)
        self.assertIn("certificate verify failed", str(caught.exception))
        self.assertEqual((server.messages, server.logins), ([], []))


class Agent(EndToEnd, TestCase):
    """The agent "smtp" and its handshakes."""

    async def deliver(self, server: Relay, tls: TLS, count: int = 1, host: str = NAME, **more: str) -> list[Outcome]:
        """Deliver the same message so many times, and close the agent."""
        agent = SMTPDelivery(cast(IReactor, reactor), Local(), "me.example", deferToThread, unchanged)
        which = route(Hop(host, server.port, tls), **more)
        outcomes = [(await agent.deliver(lease("bob@example.org"), which))[0] for _ in range(count)]
        await agent.close()
        return outcomes

    async def test_verified(self) -> None:
        """With the right certificate, of an authority of the route's own, mail goes over one connection, with a login."""
        server = self.relay(tls=True)
        password = self.folder / "password"
        password.write_text("secret\n")
        more = {"ca": str(self.pem), "user": "ann", "password_file": str(password)}
        first, second = await self.deliver(server, "verified", 2, **more)
        self.assertEqual((first.action, first.reply, first.tls), ("relayed", "250 2.0.0 queued", "TLSv1.3"))
        self.assertEqual(first.host, f"{NAME}[127.0.0.1]:{server.port}")
        self.assertEqual((second, server.sessions, len(server.messages)), (first, 1, 2))
        self.assertEqual(server.logins, ["PLAIN AGFubgBzZWNyZXQ="])

    async def test_wrong_name(self) -> None:
        """A certificate for another name, or of an authority that is not trusted, delays."""
        for host, ca in (("other.example", str(self.pem)), (NAME, "")):
            server = self.relay(tls=True)
            (outcome,) = await self.deliver(server, "verified", host=host, ca=ca)
            self.assertEqual((outcome.action, outcome.status, outcome.scope), ("delayed", "4.7.5", "host"))
            self.assertIn("certificate", outcome.reply)
            self.assertEqual(server.messages, [])

    async def test_no_authority(self) -> None:
        """A file of authorities without a certificate delays."""
        empty = self.folder / "empty.pem"
        for octets in (b"", b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"):
            empty.write_bytes(octets)
            (outcome,) = await self.deliver(self.relay(tls=True), "verified", ca=str(empty))
            self.assertEqual((outcome.action, outcome.status), ("delayed", "4.7.5"))

    async def test_unverified(self) -> None:
        """Where nobody asks for the right certificate any will do, and the outcome says so."""
        for tls in POSTURES:
            (outcome,) = await self.deliver(self.relay(tls=True), tls)
            self.assertEqual((outcome.action, outcome.tls), ("relayed", "TLSv1.3 unverified"))

    async def test_falling_back(self) -> None:
        """A handshake that no version is left for goes in clear where TLS is opportunistic, and delays where it is required."""
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_ciphers("ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0")
        server = self.relay(tls=True)
        (outcome,) = await self.deliver(server, "opportunistic")
        self.assertEqual((outcome.action, outcome.tls, server.sessions), ("relayed", "", 2))
        (outcome,) = await self.deliver(self.relay(tls=True), "required")
        self.assertEqual((outcome.action, outcome.status), ("delayed", "4.7.5"))
