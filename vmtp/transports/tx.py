"""The client's engine on Twisted: a protocol that runs the procedures of `vmtp.client.steps`, one at a time.

    connection = await connectProtocol(endpoint, Connection(reactor, options))
    await connection.run(steps.connect(connection.engine, "relay.example.org"))
    result = await connection.run(steps.send(connection.engine, envelope, content))
    await connection.close()

Time is kept by one delayed call that is set again at each wait; patience is for a whole reply, so that a peer that drips octets wins no
time. A large content waits for the transport (a push producer).

*Failures*: the Deferred of `run` fails with what the procedure raises. When the connection ends while nothing runs, `onLost` alone
hears of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtp.client import steps
from vmtp.client.engine import Engine, Event, TLSFacts
from vmtp.client.states import PATIENCE_HANDSHAKE
from vmtp.client.steps import Need, Steps, Wait
from vmtp.errors import ConnectionClosed, RemoteError, TLSFailed

T = TypeVar("T")

_LATER = object()
_FAREWELL = 10.0
"""Seconds that a TLS peer has to close in its turn."""


@implementer(IHandshakeListener, IPushProducer)
class Connection(Protocol):
    """One connection of a client. `tls` makes the handshakes; `verified` tells whether it checks the certificate.

    `onLost` is called with the connection once it is gone.
    """

    transport: Any

    def __init__(
        self, clock: IReactorTime, tls: IOpenSSLClientConnectionCreator | None = None, verified: bool = False
    ) -> None:
        self.engine = Engine()
        self.lost = False
        self.onLost: Callable[[Connection], None] = _ignore
        self._clock = clock
        self._tls = tls
        self._verified = verified
        self._steps: Steps[Any] | None = None
        self._done: Deferred[Any] | None = None
        self._need: Need | None = None
        self._events: list[Event] = []
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._producing = False
        self._dropped = False
        self._socket: socket.socket | None = None

    @property
    def usable(self) -> bool:
        """Whether another procedure may run."""
        return self._steps is None and not self.lost and not self.engine.closed

    def run(self, procedure: Steps[T]) -> Deferred[T]:
        """Run a procedure; the Deferred has what it returns. To cancel it aborts the connection. One at a time: else `RuntimeError`."""
        if self._steps is not None:
            raise RuntimeError("a procedure is running")
        done: Deferred[T] = Deferred(self._cancel)
        self._steps, self._done = procedure, done
        self._advance(None)
        return done

    def close(self) -> Deferred[None]:
        """Say QUIT, and go. Never fails."""
        if self.usable:
            return self.run(steps.quit(self.engine)).addBoth(lambda _: self.abort())
        self.abort()
        return succeed(None)

    def abort(self) -> None:
        """Go at once."""
        self.engine.end(ConnectionClosed("we closed the connection"))
        self._drop()

    # The transport's side

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._write_directly()

    def dataReceived(self, data: bytes) -> None:
        if events := self.engine.receive(data):
            self._hear(events)

    def handshakeCompleted(self) -> None:
        if self._need is Need.UPGRADE:
            handle = self.transport.getHandle()
            version, cipher = handle.get_protocol_version_name(), handle.get_cipher_name()
            self.engine.tls_established(TLSFacts(version, cipher or "", self._verified))
            self._resume(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost, self._socket = True, None
        self._stop_timer()
        if self._need is Need.UPGRADE:
            self._fail(TLSFailed(f"no TLS handshake: {_reason(reason)}", "STARTTLS"))
        elif reason.check(ConnectionDone):
            self._hear(self.engine.receive(b""))
        else:
            self._hear([self.engine.end(ConnectionClosed(f"the connection was lost: {_reason(reason)}"))])
        self.onLost(self)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._need is Need.FLUSH:
            self._resume(None)

    def stopProducing(self) -> None:
        """The connection is going; connectionLost tells the rest."""

    # The procedure's side

    def _advance(self, value: Any, error: BaseException | None = None) -> None:
        procedure = self._steps
        if procedure is None:
            return
        while True:
            try:
                need = procedure.send(value) if error is None else procedure.throw(error)
            except StopIteration as stop:
                self._finish(stop.value)
                return
            except Exception:
                self._finish(Failure())
                return
            value = error = None
            if need is Need.RECEIVE:
                self._write()
                if self.engine.closed and not self._events:
                    self._events = self.engine.receive(b"")
                if not self._events:
                    self._wait(need, self.engine.patience)
                    return
                value, self._events = self._events, []
            elif need is Need.FLUSH:
                self._produce()
                self._write()
                if self._paused and not self.engine.closed:
                    self._wait(need, self.engine.patience)
                    return
            elif isinstance(need, Wait):
                value = self._await(need.what)
                if value is _LATER:
                    return
                if isinstance(value, Failure):
                    value, error = None, value.value
            elif self._tls is None or self.engine.closed:
                error = TLSFailed("no TLS is set up for this connection", "STARTTLS")
            else:
                self._socket = None
                self._wait(need, PATIENCE_HANDSHAKE)
                self.transport.startTLS(self._tls)
                return

    def _write(self) -> None:
        data = self.engine.bytes_to_send()
        if data and self._socket is not None:
            with suppress(OSError):  # it would block, or the connection is gone: the transport finds out
                data = data[self._socket.send(data) :]
            if data:
                self._socket = None
        if data:
            self.transport.write(data)

    def _write_directly(self) -> None:
        """Pass by the reactor's buffer, which costs a round through it, as long as it is empty; not under TLS."""
        handle = None if self.engine.tls else getattr(self.transport, "socket", None)
        self._socket = handle if isinstance(handle, socket.socket) else None

    def _produce(self) -> None:
        if not self._producing and not self.lost:
            self._producing, self._socket = True, None
            self.transport.registerProducer(self, True)

    def _await(self, what: Any) -> Any:
        """A result that is at hand already: many of them in turn must not nest. Else `_LATER`: the procedure goes on when it comes."""
        waiting = what if isinstance(what, Deferred) else Deferred.fromCoroutine(what)
        results: list[Any] = []
        waiting.addBoth(results.append)
        if results:
            return results[0]
        waiting.addCallback(lambda _: self._arrive(results[0]))
        return _LATER

    def _arrive(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._advance(None, result.value)
        else:
            self._advance(result)

    def _wait(self, need: Need, seconds: float) -> None:
        self._need = need
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._expire)
        else:
            self._timer.reset(seconds)

    def _resume(self, value: Any, error: BaseException | None = None) -> None:
        self._need = None
        self._advance(value, error)

    def _hear(self, events: list[Event]) -> None:
        if self._need is Need.RECEIVE:
            self._resume(events)
        elif self._steps is not None:
            self._events += events
            if self._need is Need.FLUSH and self.engine.closed:
                self._resume(None)
        if self.engine.closed:
            self._drop()

    def _expire(self) -> None:
        self._timer = None
        if self._need is Need.UPGRADE:
            self._fail(TLSFailed("the TLS handshake took too long", "STARTTLS"))
        elif self._need is not None:
            self._hear([self.engine.expire()])
        elif self._dropped:
            self.transport.abortConnection()

    def _fail(self, error: RemoteError) -> None:
        self.engine.end(error)
        self._resume(None, error)
        self._drop()

    def _finish(self, result: Any) -> None:
        done, self._done, self._steps, self._events = self._done, None, None, []
        if self._producing:
            self._producing = self._paused = False
            self.transport.unregisterProducer()
        if self.engine.closed:
            self._drop()
        elif self._socket is None:  # all is answered, so all was written
            self._write_directly()
        if done is not None:
            (done.errback if isinstance(result, Failure) else done.callback)(result)

    def _cancel(self, done: Deferred[Any]) -> None:
        self._done = None
        self.abort()

    def _drop(self) -> None:
        """Let go of the transport: politely behind an answered QUIT, else at once."""
        if self.lost or self._dropped:
            return
        self._dropped = True
        self._stop_timer()
        if self.engine.error is None:
            self.transport.loseConnection()
            self._timer = self._clock.callLater(_FAREWELL, self._expire)
        else:
            self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore(connection: Connection) -> None:
    pass


def _reason(reason: Failure) -> str:
    """What Twisted or OpenSSL says, in one line."""
    error: Any = reason.value
    found = error.args[0] if error.args else None
    if isinstance(found, list) and found:
        if isinstance(found[-1], tuple):  # OpenSSL.SSL.Error: [(library, function, reason), ...]
            return str(found[-1][-1])
        return "the certificate is for another name"  # service_identity.VerificationError
    return " ".join((reason.getErrorMessage() or type(error).__name__).split())
