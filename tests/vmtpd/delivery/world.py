"""A small world for agents: messages in memory, hosts that a test plays, names that it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtpd.interfaces import IContent, IReader, IResolver, NoSuchDomain
from vmtpd.mail import Addressee, Client, Hop, Lease, Message, Route

HEAD = b"Received: from x by y\r\n"
BODY = b"From: Ann <ann@printer.lan>\r\n\r\ntext\r\n"
EHLO = b"250-relay\r\n250 PIPELINING\r\n"


@implementer(IReader)
class Reader:
    """Reads from octets in memory."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.closed = False

    def read(self, n: int) -> bytes | Deferred[bytes]:
        piece, self.octets = self.octets[:n], self.octets[n:]
        return piece

    def close(self) -> None:
        self.closed = True


@implementer(IReader)
class LateReader(Reader):
    """Gives each piece as a Deferred."""

    def read(self, n: int) -> bytes | Deferred[bytes]:
        piece = super().read(n)
        return succeed(piece) if isinstance(piece, bytes) else piece


@implementer(IReader)
class BadReader(Reader):
    """A disk that fails behind its first octets."""

    def read(self, n: int) -> bytes | Deferred[bytes]:
        piece = super().read(min(n, 4))
        return piece if piece else fail(OSError(5, "Input/output error"))


@implementer(IContent)
class Content:
    """Octets in memory."""

    def __init__(self, octets: bytes, kind: type[Reader] = Reader) -> None:
        self.octets = octets
        self.size = len(octets)
        self.digest = b""
        self.kind = kind
        self.readers: list[Reader] = []

    def open(self) -> IReader:
        reader = self.kind(self.octets)
        self.readers.append(reader)
        return reader


def lease(*recipients: str, sender: str = "ann@example.org", body: bytes = BODY, kind: type[Reader] = Reader) -> Lease:
    """A message for these recipients."""
    message = Message(7, Client("address", "192.0.2.1"), sender, {}, 1000.0, 2000.0, HEAD, Content(body, kind))
    return Lease(message, tuple(Addressee(n, address) for n, address in enumerate(recipients, 1)))


def route(*hosts: Hop, **more: Any) -> Route:
    """A route to these hosts, to one without TLS by default."""
    return Route("out", "smtp", "dest", "a test", hosts or (Hop("mx.example", 25, "none"),), **more)


@implementer(IResolver)
class Names:
    """Knows the addresses it is given."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts

    def addresses(self, host: str) -> Deferred[list[str]]:
        known = self.hosts.get(host.split(".")[0])
        return succeed(known) if known is not None else fail(NoSuchDomain(f"{host} does not exist"))

    def mx(self, domain: str) -> Deferred[list[tuple[int, str]]]:
        return fail(NoSuchDomain(domain))


def inline(f: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Stands for a thread: the call is made at once."""
    return maybeDeferred(f, *args)


class Transport(StringTransport):
    """A transport whose end and whose handshakes a test decides."""

    protocol: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.handshakes = 0

    def startTLS(self, options: object) -> None:
        """Begin a handshake."""
        self.handshakes += 1

    def getHandle(self) -> Transport:
        """What a handshake brought can be asked here."""
        return self

    def get_protocol_version_name(self) -> str:
        """As an OpenSSL connection says it."""
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        """As an OpenSSL connection says it."""
        return "TLS_AES_128_GCM_SHA256"

    def abortConnection(self) -> None:
        """Go at once."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """Go, and say so."""
        if not self.disconnected:
            self.disconnected = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Call:
    """One attempt to connect, and the connection that a test makes of it."""

    def __init__(self, host: str, port: int, factory: Any, timeout: float) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self._factory = factory
        self.transport = Transport()

    def accept(self) -> Call:
        """Connect."""
        protocol = self._factory.buildProtocol(None)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        return self

    def refuse(self, error: Exception | None = None) -> None:
        """Do not."""
        self._factory.clientConnectionFailed(None, Failure(error or ConnectionRefusedError(111)))

    def greet(self, ehlo: bytes = EHLO) -> Call:
        """Connect, greet and answer EHLO."""
        self.accept()
        self.says(b"220 relay\r\n")
        self.says(ehlo)
        self.heard()
        return self

    def says(self, octets: bytes) -> None:
        """What the host sends."""
        self.transport.protocol.dataReceived(octets)

    def heard(self) -> bytes:
        """What it was sent since the last time."""
        octets = self.transport.value()
        self.transport.clear()
        return octets

    def shakes_hands(self) -> None:
        """Complete a handshake."""
        self.transport.protocol.handshakeCompleted()

    def goes(self) -> None:
        """The host closes the connection."""
        self.transport.loseConnection()

    @property
    def open(self) -> bool:
        """Whether nobody has closed it."""
        return not self.transport.disconnected


class World(MemoryReactorClock):
    """A reactor with the calls that were made."""

    @property
    def dialled(self) -> list[str]:
        """The addresses that were tried, in their order."""
        return [host for host, *_ in self.tcpClients]

    def call(self, n: int = -1) -> Call:
        """An attempt to connect, the last one by default."""
        host, port, factory, timeout, _ = self.tcpClients[n]
        return Call(host, port, factory, timeout)
