"""The agent "smtp": hands a message to the first of a route's hosts that takes it.

One lease is one transaction, over a session that is open already or a new one. A host in trouble is followed by the next, with
the recipients that have no verdict yet, and is tried last for a minute. What the peer says of a message or of a recipient is
final for this attempt: no other host is asked.

A session that was kept open may be gone when it is needed: if it dies before any reply to the new transaction, that is tried once
more on a fresh one. Behind the last octet of a content nothing is tried again: the message may have arrived.

*Failures*: never of the Deferred. Every trouble is an outcome, as `trouble.py` judges it; an error of ours is logged, and its mail delayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtp.client import steps
from vmtp.client.steps import SendResult
from vmtp.envelope import Envelope, Recipient
from vmtp.errors import ConnectionClosed, LocalError
from vmtp.transports.tx import Connection
from vmtpd.delivery.content import Whole
from vmtpd.delivery.dial import CONNECT, Dialer, IReactor, Unreachable
from vmtpd.delivery.pool import Key, Pool, Session
from vmtpd.delivery.tls import Run
from vmtpd.delivery.trouble import Trouble, of_answer, of_disk, of_error, too_many
from vmtpd.interfaces import IDelivery, IReader, IResolver
from vmtpd.mail import Addressee, Hop, Lease, Message, Outcome, Route

Rewrite = Callable[[Message, Route], tuple[str, Callable[[], IReader], int]]
"""A message as a route wants it: envelope sender, what opens its content, octets as well as they are known."""

AVOID = 60.0
"""Seconds for which a host in trouble is tried last."""

MAX_AVOIDED = 1000

_NO_HOST = Trouble("host", "delayed", "4.4.4", "the route has no host")
_NO_ADDRESS = Trouble("recipient", "failed", "5.1.3", "not an address that may be sent")
_SILENT = ConnectionClosed("no answer")


@implementer(IDelivery)
class SMTPDelivery:
    """`hostname` is our name in EHLO, `run` calls functions in a thread; `idle` seconds and `messages` bound a connection's life."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactor,
        resolver: IResolver,
        hostname: str,
        run: Run,
        rewrite: Rewrite,
        *,
        idle: float = 30.0,
        messages: int = 100,
        connect: float = CONNECT,
    ) -> None:
        self._clock = reactor
        self._rewrite = rewrite
        self._dialer = Dialer(reactor, resolver, hostname, run, connect)
        self._pool = Pool(reactor, idle, messages)
        self._avoided: dict[tuple[str, int], float] = {}

    def deliver(self, lease: Lease, route: Route) -> Deferred[list[Outcome]]:
        attempt = _Attempt(lease, route, self._rewrite)
        hosts = self._in_order(route.hosts) if attempt.pending else ()
        session = self._pool.take(Key.of(hosts[0], route)) if hosts else None
        if session is None:
            return Deferred.fromCoroutine(self._deliver(attempt, hosts))
        # Nearly always a session that is open takes all of it, and that needs no coroutine.
        return self._send(session, attempt).addBoth(self._sent, session, attempt, hosts)

    def _sent(
        self, result: SendResult | Failure, session: Session, attempt: _Attempt, hosts: Sequence[Hop]
    ) -> list[Outcome] | Deferred[list[Outcome]]:
        if isinstance(result, Failure) or not result.good:
            return Deferred.fromCoroutine(self._deliver(attempt, hosts, session, result))
        attempt.settle(result, session)
        self._pool.give(Key.of(hosts[0], attempt.route), session)
        return attempt.outcomes()

    def close(self) -> Deferred[None]:
        return self._pool.close()

    async def _deliver(
        self,
        attempt: _Attempt,
        hosts: Sequence[Hop],
        session: Session | None = None,
        result: SendResult | Failure | None = None,
    ) -> list[Outcome]:
        """The hosts one by one; the first may have been tried already, by a session that was open."""
        try:
            if isinstance(result, Failure):
                result.raiseException()
            for hop in hosts:
                if await self._try(hop, attempt, session, result):
                    break
                session = result = None
        except LocalError as error:
            attempt.trouble(of_error(error))
        except OSError as error:
            attempt.trouble(of_disk(error))
        except Exception as error:
            self.log.failure("delivering a message")
            attempt.trouble(of_error(error))
        return attempt.outcomes()

    def _in_order(self, hosts: tuple[Hop, ...]) -> Sequence[Hop]:
        """The route's order, but those that gave trouble lately come last."""
        if not self._avoided:
            return hosts
        now = self._clock.seconds()
        self._avoided = {host: until for host, until in self._avoided.items() if until > now}
        return sorted(hosts, key=lambda hop: (hop.host, hop.port) in self._avoided)

    def _avoid(self, hop: Hop) -> None:
        if len(self._avoided) < MAX_AVOIDED:
            self._avoided[hop.host, hop.port] = self._clock.seconds() + AVOID

    async def _try(
        self, hop: Hop, attempt: _Attempt, session: Session | None = None, result: SendResult | None = None
    ) -> bool:
        """One host. Returns whether all is said; otherwise the next host is worth trying."""
        key = Key.of(hop, attempt.route)
        session = session or self._pool.take(key)
        kept = session is not None
        while True:
            if session is None:
                try:
                    session = await self._dialer.open(hop, attempt.route)
                except Unreachable as trouble:
                    self._avoid(hop)
                    attempt.trouble(of_error(trouble.error), trouble.host, trouble.tls)
                    return False
            result = result or await self._send(session, attempt)
            if kept and _stale(result):
                session, kept = None, False
            elif not attempt.settle(result, session):
                break
            result = None
        if attempt.pending:
            self._avoid(hop)
            session.connection.close()
            return False
        self._pool.give(key, session)
        return True

    def _send(self, session: Session, attempt: _Attempt) -> Deferred[SendResult]:
        """One transaction. Where it fails by a fault of ours the connection is closed, in whatever state it is."""
        connection = session.connection
        content: IReader | None = None
        try:
            content = attempt.open()
            reader = cast(steps.Content, content)
            sent = connection.run(steps.send(connection.engine, attempt.envelope(), reader, attempt.size))
        except Exception:
            sent = fail()
        return sent.addBoth(_ended, content, connection)


def _ended(result: Any, content: IReader | None, connection: Connection) -> Any:
    if content is not None:
        content.close()
    if isinstance(result, Failure):
        connection.close()
    return result


class _Attempt:
    """One try of a lease: who waits for a verdict still, and the outcomes so far."""

    def __init__(self, lease: Lease, route: Route, rewrite: Rewrite) -> None:
        message = lease.message
        self.route = route
        self.open: Callable[[], IReader] = lambda: Whole(message)
        self.size = message.size
        self._sender = message.sender
        if route.sender:
            self._sender, self.open, self.size = rewrite(message, route)
        self._params = message.params
        self._recipients = lease.recipients
        self._outcomes: dict[int, Outcome] = {}
        self.pending: list[Addressee] = []
        for each in lease.recipients:
            if steps.sendable(route.recipient or each.address):
                self.pending.append(each)
            else:
                self._outcomes[each.n] = _NO_ADDRESS.outcome(each.n)

    def envelope(self) -> Envelope:
        """The envelope for those who wait."""
        other = self.route.recipient
        return Envelope(
            self._sender, tuple(Recipient(other or each.address, each.params) for each in self.pending), self._params
        )

    def trouble(self, trouble: Trouble, host: str = "", tls: str = "") -> None:
        """The same outcome for all who wait. They go on waiting."""
        for each in self.pending:
            self._outcomes[each.n] = trouble.outcome(each.n, host, tls)

    def settle(self, result: SendResult, session: Session) -> bool:
        """Outcomes of a transaction. Returns whether another one in the same session takes those who were too many for it."""
        host, tls = session.host, session.tls
        waiting: list[Addressee] = []
        more: list[Addressee] = []
        for each, answer in zip(self.pending, result.answers, strict=True):
            if answer and answer.reply.ok:
                self._outcomes[each.n] = Outcome(each.n, "relayed", answer.reply.status, str(answer.reply), host, tls)
                continue
            trouble = of_answer(answer) if answer else of_error(result.error or _SILENT)
            self._outcomes[each.n] = trouble.outcome(each.n, host, tls)
            if trouble.scope == "host":
                waiting.append(each)
            elif answer and too_many(answer):
                more.append(each)
        again = bool(more) and not waiting and result.error is None and result.final is not None and result.final.ok
        self.pending = more if again else waiting
        return again

    def outcomes(self) -> list[Outcome]:
        """One for each recipient of the lease."""
        known = self._outcomes
        return [known.get(each.n) or _NO_HOST.outcome(each.n) for each in self._recipients]


def _stale(result: SendResult) -> bool:
    """Whether the session had died before it was taken: before any reply to the new transaction."""
    return result.error is not None and result.error.operation in ("", "RSET", "MAIL")
