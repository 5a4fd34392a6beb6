"""Connections that are kept open for the next message.

A session is kept under what it was opened for: host, route, login. It goes when it was idle for too long, has carried enough messages,
or its peer closed it; over a bound on all, the one that was idle longest goes first.

*Failures*: none. A peer may close a connection at the moment when it is taken: whoever takes one must be ready for that.
"""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from vmtp.transports.tx import Connection
from vmtpd.mail import Hop, Route

MAX_IDLE = 200
"""Idle connections in all."""


class Key(NamedTuple):
    """What a session was opened for."""

    hop: Hop
    route: str
    user: str

    @classmethod
    def of(cls, hop: Hop, route: Route) -> Key:
        return cls(hop, route.name, route.user)


class Session:
    """An open session with a next hop, ready for mail. `host` is "name[address]:port", `tls` what the handshake brought."""

    __slots__ = ("connection", "host", "messages", "since", "tls")

    def __init__(self, connection: Connection, host: str, tls: str) -> None:
        self.connection = connection
        self.host = host
        self.tls = tls
        self.messages = 0
        self.since = 0.0


class Pool:
    """The idle sessions. `idle` is in seconds, `messages` how many a connection carries before it is closed."""

    def __init__(self, clock: IReactorTime, idle: float = 30.0, messages: int = 100) -> None:
        self._clock = clock
        self._idle = idle
        self._messages = messages
        self._kept: dict[Key, list[Session]] = {}
        self._order: dict[Session, Key] = {}  # all of them, the one that is idle longest first
        self._sweep: IDelayedCall | None = None
        self._closed = False

    def take(self, key: Key) -> Session | None:
        """The session that was used last, or None."""
        waiting = self._kept.get(key, [])
        while waiting:
            session = waiting[-1]
            self._forget(session)
            if session.connection.usable:
                return session
        return None

    def give(self, key: Key, session: Session) -> None:
        """Keep a session for the next message, or close it."""
        session.messages += 1
        if not session.connection.usable:
            return
        if self._closed or session.messages >= self._messages or self._idle <= 0:
            session.connection.close()
            return
        session.since = self._clock.seconds()
        session.connection.onLost = lambda _: self._forget(session)
        self._kept.setdefault(key, []).append(session)
        self._order[session] = key
        if len(self._order) > MAX_IDLE:
            self._close(next(iter(self._order)))
        if self._sweep is None:
            self._sweep = self._clock.callLater(self._idle, self._sweep_idle)

    def close(self) -> Deferred[None]:
        """Close what is idle; what is given back later is closed at once."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        closing = [self._close(session) for session in list(self._order)]
        return gatherResults(closing, consumeErrors=True).addBoth(lambda _: None)

    def _close(self, session: Session) -> Deferred[None]:
        self._forget(session)
        return session.connection.close()

    def _forget(self, session: Session) -> None:
        key = self._order.pop(session, None)
        if key is not None:
            self._kept[key].remove(session)
            if not self._kept[key]:
                del self._kept[key]

    def _sweep_idle(self) -> None:
        self._sweep = None
        limit = self._clock.seconds() - self._idle
        for session in [session for session in self._order if session.since <= limit]:
            self._close(session)
        if self._order:
            oldest = next(iter(self._order)).since
            self._sweep = self._clock.callLater(oldest - limit, self._sweep_idle)
