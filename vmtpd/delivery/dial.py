"""Opens sessions: from the name of a host to a session that is ready for mail.

Name to addresses (at most five, IPv6 and IPv4 in turn), address to connection (30 s each), greeting and EHLO, TLS as the hop asks,
login. An address that gives trouble is followed by the next. Where TLS was only opportunistic and its handshake fails, the same address
is tried again in clear. A login that is refused is not repeated at another address: some servers lock an account after a few.

*Failures*: `Unreachable`, with the last host that was tried and the error, which `trouble.py` judges.
"""

from __future__ import annotations

from itertools import chain, zip_longest

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory

from vmtp.client import steps
from vmtp.errors import Error, InvalidInput, RemoteError, TLSFailed
from vmtp.transports.tx import Connection
from vmtpd.delivery.pool import Session
from vmtpd.delivery.tls import Handshake, Handshakes, Run
from vmtpd.interfaces import IResolver, NoSuchDomain, ResolverTrouble
from vmtpd.mail import TLS, Hop, Route

MAX_ADDRESSES = 5
CONNECT = 30.0
"""Seconds for a connection to one address."""

MAX_PASSWORD = 4096


class Unreachable(Exception):
    """No session. `host` is what was tried last, `error` why it gave none, `tls` the version that was in use."""

    def __init__(self, host: str, error: Exception, tls: str = "") -> None:
        super().__init__(str(error))
        self.host = host
        self.error = error
        self.tls = tls


class IReactor(IReactorTCP, IReactorTime):
    """What dialling needs of a reactor."""


class _Once(Factory):
    """The factory of one connection that is there already, and that tells nobody of its start and end."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


class Dialer:
    """Opens sessions. `hostname` is our name in EHLO; `run` calls functions in a thread."""

    def __init__(
        self, reactor: IReactor, resolver: IResolver, hostname: str, run: Run, connect: float = CONNECT
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._hostname = hostname
        self._connect_seconds = connect
        self._run = run
        self._handshakes = Handshakes(run)

    async def open(self, hop: Hop, route: Route) -> Session:
        """A session with a host. Raises `Unreachable`."""
        name = f"{hop.host}:{hop.port}"
        try:
            addresses = _in_turn(await self._resolver.addresses(hop.host.strip("[]")))
            handshake = await self._handshake(hop, route)
        except (NoSuchDomain, ResolverTrouble, Error, OSError) as error:
            raise Unreachable(name, error) from None
        trouble = Unreachable(name, ResolverTrouble("the host has no address"))
        for address in addresses:
            host = f"{hop.host}[{address}]:{hop.port}"
            try:
                session = await self._greet(address, host, hop, handshake)
            except (ConnectError, RemoteError, OSError) as error:
                trouble = Unreachable(host, error)
                continue
            await self._login(session, route)
            return session
        raise trouble

    async def _handshake(self, hop: Hop, route: Route) -> Handshake | None:
        if hop.tls == "none" and not hop.implicit:
            return None
        return await self._handshakes.to(hop.host.strip("[]"), hop.tls == "verified", route.ca)

    async def _greet(self, address: str, host: str, hop: Hop, handshake: Handshake | None) -> Session:
        """A session with an address, not logged in yet."""
        try:
            connection = await self._connect(address, hop, handshake, hop.tls)
        except TLSFailed:
            if hop.tls != "opportunistic" or hop.implicit:
                raise
            connection = await self._connect(address, hop, None, "none")
        return Session(connection, host, _in_use(connection))

    async def _connect(self, address: str, hop: Hop, handshake: Handshake | None, tls: TLS) -> Connection:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, address, hop.port, timeout=self._connect_seconds)
        connection = Connection(self._reactor, *(handshake or ()))
        await endpoint.connect(_Once(connection))
        try:
            await connection.run(steps.connect(connection.engine, self._hostname, tls, implicit=hop.implicit))
        except Error:
            connection.close()
            raise
        return connection

    async def _login(self, session: Session, route: Route) -> None:
        if not route.user:
            return
        connection = session.connection
        try:
            password = await self._password(route.password_file)
            await connection.run(steps.login(connection.engine, route.user, password))
        except (Error, OSError) as error:
            connection.close()
            raise Unreachable(session.host, error, session.tls) from None

    def _password(self, path: str) -> Deferred[str]:
        return self._run(_read, path)


def _read(path: str) -> str:
    """The password in a file, without its line end."""
    with open(path, "rb") as file:
        octets = file.read(MAX_PASSWORD)
    try:
        return octets.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise InvalidInput("the password file is not UTF-8", "AUTH") from None


def _in_turn(addresses: list[str]) -> list[str]:
    """IPv6 and IPv4 in turn, so that neither is left out by the bound on them."""
    six = [address for address in addresses if ":" in address]
    four = [address for address in addresses if ":" not in address]
    return [address for address in chain(*zip_longest(six, four)) if address][:MAX_ADDRESSES]


def _in_use(connection: Connection) -> str:
    facts = connection.engine.tls
    if facts is None:
        return ""
    return facts.version if facts.verified else f"{facts.version} unverified"
