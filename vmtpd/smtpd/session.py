"""A session with a client: Twisted's ESMTP as the shell, the server engine as what thinks.

Where it stands: octets come from the transport and go to the engine; its events become questions to the policy and, at the end of the
content, a submission. A 250 for a message leaves only when the store has it.

Of the base class this keeps the factory, the portal, the host name and the time-out. No line ever reaches it: its own parser and its
mode are unused.

*Failures*: a Verdict that fails to come is 451 and logged; a store without room is 452, a broken one 451. The body of a client that
goes away in the middle is discarded.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.logger import Logger
from twisted.mail.smtp import ESMTP
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtp.envelope import Recipient
from vmtp.replies import Reply
from vmtp.server import BEGIN, Content, Data, End, Engine, Hello, Login, Mail, Rcpt, Reset, Slot, StartTLS
from vmtpd.ids import encode
from vmtpd.mail import Facts, Message, Verdict
from vmtpd.smtpd.transaction import Transaction, excuse

if TYPE_CHECKING:
    from vmtpd.smtpd.door import Door

_BEGIN_TLS = Reply(220, "2.0.0", "begin")
_TIMED_OUT = Reply(421, "4.4.2", "nothing came for too long")
_TROUBLE = Verdict(451, "4.3.0", "trouble here, try again later", "a question to the policy failed")
_LINGER = 10.0
"""Seconds that a client may take to read our last reply."""


@implementer(IHandshakeListener, IPushProducer)
class Session(ESMTP):
    """One client's connection."""

    log = Logger()

    def __init__(self, door: Door, engine: Engine, facts: Facts) -> None:
        super().__init__()
        self.door = door
        self.house = door.house
        self.engine = engine
        self.facts = facts
        self._transaction: Transaction | None = None
        self._running = False
        self._storing = 0
        self._blocked = 0
        self._choked = False
        self._shaking = door.listening.implicit
        self._reading = True
        self._leaving = False
        self._open = False
        self._lost = False
        self._heard = door.house.clock.seconds()
        self._socket: socket.socket | None = None
        self._take: dict[type, Callable[[Any], None]] = {
            Hello: self._hello,
            Mail: self._mail,
            Rcpt: self._rcpt,
            Data: self._data,
            Content: self._content,
            End: self._end,
            Reset: self._reset,
            Login: self._login,
            StartTLS: self._starttls,
        }

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """The time-out of the base class runs on the clock that we were given."""
        return self.house.clock.callLater(period, func)

    # The connection.

    def connectionMade(self) -> None:
        """Greet the client, or say why not."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        plain = None if self.engine.tls else getattr(transport, "socket", None)
        self._socket = plain if isinstance(plain, socket.socket) else None
        self.setTimeout(self.engine.patience)
        verdict = self.house.policy.connect(self.facts)
        self._open = verdict.ok
        if verdict.ok:
            self.house.metrics["connections"] += 1
            self.house.metrics["sessions"] += 1
            self.engine.greet(Reply(220, "", f"{self.house.hostname} ESMTP"))
            self.door.opened(self)
        else:
            self._refused("connections", verdict)
            self.engine.greet(verdict)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client: the engine alone reads them."""
        self._heard = self.house.clock.seconds()
        self.engine.receive(data)
        self._run()

    def lineReceived(self, line: bytes) -> None:
        """Never called: the base class parses nothing here."""
        raise AssertionError("the engine reads the lines")

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        self._shaking = False
        layer: Any = self.transport
        if not isinstance(layer, TLSMemoryBIOProtocol):
            layer = layer.protocol
        self.facts.tls = layer.getHandle().get_protocol_version_name()

    def timeoutConnection(self) -> None:
        """The timer is over. The client may have been heard since it was set, and is not blamed for the time that we take ourselves."""
        patience = self.engine.patience
        left = patience if self._storing or self._blocked else self._heard + patience - self.house.clock.seconds()
        if left > 0:
            self.setTimeout(left)
            return
        self.engine.close(_TIMED_OUT)
        self._flush()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The client is gone; what it did not finish is not kept."""
        self.setTimeout(None)
        self._reset(None)
        self._lost = True
        self._socket = None
        if self._open:
            self._open = False
            self.house.policy.disconnect(self.facts)
            self.house.metrics["sessions"] -= 1
        self.door.gone(self)

    def retire(self, farewell: Reply) -> None:
        """Say goodbye as soon as no transaction is open."""
        self.engine.retire(farewell)
        self._flush()

    def abort(self) -> None:
        """End the connection now."""
        transport: Any = self.transport
        transport.abortConnection()

    def _run(self) -> None:
        """Take events until the engine waits for octets or for an answer."""
        if self._running:
            return
        self._running = True
        try:
            while (event := self.engine.next_event()) is not None:
                self._take[type(event)](event)
        finally:
            self._running = False
        self._flush()

    def _flush(self) -> None:
        if out := self.engine.bytes_to_send():
            self._write(out)
        if self.engine.closed:
            self._leave()
        else:
            self._flow()

    def _write(self, out: bytes) -> None:
        """Write to the socket itself as long as it takes everything: the transport's buffer costs a round of the reactor."""
        transport: Any = self.transport
        if self._socket is not None:
            with suppress(OSError):
                out = out[self._socket.send(out) :]
            if not out:
                return
            self._socket = None  # from here on the transport's buffer, which keeps the order
        transport.write(out)

    def _leave(self) -> None:
        transport: Any = self.transport
        self.setTimeout(None)
        transport.unregisterProducer()
        transport.loseConnection()
        self._reading = False
        if not self._leaving:
            self._leaving = True
            self.callLater(_LINGER, self._hang_up)

    def _hang_up(self) -> None:
        if self in self.door.sessions:
            self.abort()

    # Flow: stop reading while the engine has enough, the disk is behind, or the client does not read our replies.

    def pauseProducing(self) -> None:
        """The client does not read: take no more commands from it. During a handshake it is TLS that cannot write until it has read."""
        self._choked = not self._shaking
        self._flow()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._choked = False
        self._flow()

    def stopProducing(self) -> None:
        """The connection is going away."""

    def _flow(self) -> None:
        transport: Any = self.transport
        wanted = self.engine.wants_input and not self._blocked and not self._choked
        if wanted != self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                transport.resumeProducing()
            else:
                transport.pauseProducing()

    # Questions.

    def _answer(self, slot: Slot, verdict: Verdict | Deferred[Verdict], then: Callable[[Verdict], None]) -> None:
        """Give a verdict to the engine, at once or when it comes. `then` hears of it first."""
        if isinstance(verdict, Deferred):
            verdict.addErrback(self._trouble)
            verdict.addCallback(self._answer_late, slot, then)
        else:
            then(verdict)
            self.engine.answer(slot, verdict)

    def _answer_late(self, verdict: Verdict, slot: Slot, then: Callable[[Verdict], None]) -> None:
        if not self._lost:
            then(verdict)
            self.engine.answer(slot, verdict)
            self._run()

    def _trouble(self, failure: Failure) -> Verdict:
        self.log.failure("a verdict failed to come", failure)
        return _TROUBLE

    def _refused(self, what: str, verdict: Verdict, **facts: object) -> None:
        self.house.metrics[f"refused_{what}"] += 1
        self.house.lines.write("refused", client=self.facts.client, **facts, reply=verdict, why=verdict.reason)

    # Events.

    def _hello(self, event: Hello) -> None:
        self._reset(None)
        self.facts.hello = event.name
        self.facts.extended = event.verb == "EHLO"
        self.engine.answer(event.slot, self.engine.hello(event, f"greets {self.facts.address}"))

    def _mail(self, event: Mail) -> None:
        sender = self.house.local.complete(event.sender)

        def then(verdict: Verdict) -> None:
            if verdict.ok:
                self._transaction = Transaction(self.house, sender, event.params)
            else:
                self._refused("senders", verdict, sender=sender)

        self._answer(event.slot, self.house.policy.mail(self.facts, sender), then)

    def _rcpt(self, event: Rcpt) -> None:
        transaction = self._transaction
        assert transaction is not None
        recipient = self.house.local.complete(event.recipient)

        def then(verdict: Verdict) -> None:
            if verdict.ok:
                transaction.recipients.append(Recipient(recipient, event.params))
            else:
                self._refused("recipients", verdict, sender=transaction.sender, to=recipient)

        count = len(transaction.recipients)
        verdict = self.house.policy.rcpt(self.facts, transaction.sender, recipient, count)
        self._answer(event.slot, verdict, then)

    def _data(self, event: Data) -> None:
        assert self._transaction is not None
        self._transaction.begin()
        self.engine.answer(event.slot, BEGIN)

    def _content(self, event: Content) -> None:
        assert self._transaction is not None
        if (written := self._transaction.take(event.data)) is not None:
            self._blocked += 1
            written.addBoth(self._unblocked)

    def _unblocked(self, _: object) -> None:
        self._blocked -= 1
        self._flow()

    def _reset(self, event: Reset | None) -> None:
        if self._transaction is not None:
            self._transaction.discard()
            self._transaction = None

    def _login(self, event: Login) -> None:
        credentials = event.credentials

        def then(verdict: Verdict) -> None:
            if verdict.ok:
                self.facts.login = verdict.reason
                self.house.metrics["logins"] += 1
            else:
                self.house.metrics["failed_logins"] += 1
                self.house.lines.write("refused", client=self.facts.client, user=credentials.username, reply=verdict)

        asked = self.house.policy.login(
            self.facts, credentials.authorization, credentials.username, credentials.password
        )
        self._answer(event.slot, asked, then)

    def _starttls(self, event: StartTLS) -> None:
        transport: Any = self.transport
        self.engine.answer(event.slot, _BEGIN_TLS)
        self._write(self.engine.bytes_to_send())
        self._socket = None
        self._shaking = True
        transport.startTLS(self.door.listening.context)
        self._reset(None)
        self.facts.hello = self.facts.login = ""
        self.engine.tls_established()

    # From the end of the content to the 250.

    def _end(self, event: End) -> None:
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        if (refusal := transaction.refusal) is not None:
            transaction.discard()
            self._refused("messages", refusal, sender=transaction.sender)
            self.engine.answer(event.slot, refusal)
            return
        self._storing += 1
        stored = transaction.submit(self.facts)
        stored.addCallbacks(self._stored, self._not_stored, callbackArgs=(event.slot,), errbackArgs=(event.slot,))

    def _stored(self, message: Message, slot: Slot) -> None:
        self._storing -= 1
        metrics = self.house.metrics
        metrics["accepted"] += 1
        metrics["accepted_octets"] += message.content.size
        self.house.lines.write(
            "received",
            encode(message.id),
            client=self.facts.client,
            hello=self.facts.hello,
            tls=self.facts.tls,
            sender=f"<{message.sender}>",
            size=message.size,
        )
        self._finish(slot, Reply(250, "2.0.0", f"queued as {encode(message.id)}"))

    def _not_stored(self, failure: Failure, slot: Slot) -> None:
        self._storing -= 1
        verdict = excuse(failure)
        self._refused("messages", verdict)
        self._finish(slot, verdict)

    def _finish(self, slot: Slot, reply: Reply) -> None:
        if not self._lost:
            self.engine.answer(slot, reply)
            self._run()
