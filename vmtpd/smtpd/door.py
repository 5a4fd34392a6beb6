"""A door: one listener's factory, and all that its sessions share.

Where it stands: service builds one Door for each [listener]; a connection gets a `Session` from it. The door knows its open sessions, so
that it can be closed: it stops taking clients, tells those that are idle to go (421), and waits for the others.

*Failures*: none of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.mail.smtp import SMTPFactory

from vmtp.replies import Reply
from vmtp.server import Engine, Limits
from vmtpd.interfaces import IPolicy, IStore, ISubmit
from vmtpd.local import Local
from vmtpd.logs import Lines
from vmtpd.mail import Facts, Role
from vmtpd.smtpd.session import Session

_GOODBYE = Reply(421, "4.3.2", "going down, try again later")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, frozen=True)
class House:
    """What the sessions of every door share."""

    hostname: str
    local: Local
    store: IStore
    submit: ISubmit
    policy: IPolicy
    clock: IReactorTime
    wall: Callable[[], float]
    lines: Lines
    metrics: dict[str, int]


@dataclass(slots=True, frozen=True)
class Listening:
    """What is particular to one listener. `context` makes TLS connections, None for none."""

    name: str
    role: Role
    networks: Sequence[Network] = ()
    implicit: bool = False
    context: Any = None
    mechanisms: tuple[str, ...] = ()


class Door(SMTPFactory):
    """The factory of one listener's sessions."""

    noisy = False

    def __init__(self, house: House, listening: Listening, limits: Limits) -> None:
        super().__init__()
        self.house = house
        self.listening = listening
        self.limits = limits
        self.sessions: set[Session] = set()
        self.domain = house.hostname.encode()
        self.timeout = int(limits.patience)
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A session for a client at an address."""
        session = Session(self, self._engine(), self._facts(getattr(addr, "host", None)))
        session.portal = self.portal
        session.host = self.domain
        session.factory = self
        return session

    def _engine(self) -> Engine:
        here = self.listening
        return Engine(
            self.house.hostname,
            self.limits,
            starttls=here.context is not None and not here.implicit,
            tls=here.implicit,
            mechanisms=here.mechanisms,
        )

    def _facts(self, host: str | None) -> Facts:
        here = self.listening
        # Who may open a unix socket is decided by the permissions of its folder.
        address = ipaddress.ip_address(host.partition("%")[0] if host else "127.0.0.1")
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        trusted = host is None or any(address in network for network in here.networks)
        return Facts(here.name, here.role, str(address), trusted)

    def close(self) -> Deferred[None]:
        """Send idle clients away, and fire when the last session is over."""
        closed = self._closed = Deferred()
        for session in list(self.sessions):
            session.retire(_GOODBYE)
        self._look()
        return closed

    def abort(self) -> None:
        """End what is left. What was not answered was not promised."""
        for session in list(self.sessions):
            session.abort()

    def opened(self, session: Session) -> None:
        """A session began."""
        self.sessions.add(session)
        if self._closed:
            session.retire(_GOODBYE)

    def gone(self, session: Session) -> None:
        """A session is over."""
        self.sessions.discard(session)
        self._look()

    def _look(self) -> None:
        if self._closed and not self._closed.called and not self.sessions:
            self._closed.callback(None)
