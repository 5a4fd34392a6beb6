"""The client's engine on a blocking socket: it moves octets, keeps time, upgrades to TLS.

    with Connection("mail.example.org", 587) as connection:
        connection.run(steps.connect(connection.engine, "host.example.org", "verified"))
        result = connection.run(steps.send(connection.engine, envelope, io.BytesIO(content)))

TLS verifies host and certificate unless another `ssl.SSLContext` is given.

*Failures*: `ConnectionClosed` and `TimedOut` where no connection is made, otherwise what the procedure raises.
"""

from __future__ import annotations

import socket
import ssl
import time
from types import TracebackType
from typing import Any, TypeVar

from vmtp.client import steps
from vmtp.client.engine import Engine, Event, TLSFacts
from vmtp.client.states import PATIENCE_HANDSHAKE
from vmtp.client.steps import Need, Steps
from vmtp.errors import ConnectionClosed, Error, InvalidInput, TimedOut, TLSFailed

T = TypeVar("T")


class Connection:
    """One connection of a client, open from the start. `timeout` is for connecting, in seconds."""

    def __init__(
        self, host: str, port: int, *, timeout: float = 30.0, context: ssl.SSLContext | None = None, name: str = ""
    ) -> None:
        self.engine = Engine()
        self._context = context
        self._name = name or host
        self._events: list[Event] = []
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except TimeoutError:
            raise TimedOut("no connection in time", "connect") from None
        except OSError as error:
            raise ConnectionClosed(f"no connection: {error.strerror or error}", "connect") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, procedure: Steps[T]) -> T:
        """Run a procedure; returns its result, and raises what it raises."""
        value: Any = None
        error: Error | None = None
        while True:
            try:
                need = procedure.send(value) if error is None else procedure.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value = error = None
            if need is Need.RECEIVE:
                self._write()
                value = self._receive()
            elif need is Need.FLUSH:
                self._write()
            elif need is Need.UPGRADE:
                self._write()
                error = self._upgrade()
            else:
                error = InvalidInput("a blocking connection cannot wait for content", "body")

    def close(self) -> None:
        """Say QUIT, and close. Never raises for what the peer does."""
        self.run(steps.quit(self.engine))
        self.engine.end(ConnectionClosed("we closed the connection"))
        self._socket.close()

    def _write(self) -> None:
        data = self.engine.bytes_to_send()
        if not data or self.engine.closed:
            return
        self._socket.settimeout(self.engine.patience)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            self._events.append(self.engine.expire())
        except OSError:
            self._events += self._read(1.0)  # the peer may have said why before it went
            if not self.engine.closed:
                self._events += self.engine.receive(b"")

    def _receive(self) -> list[Event]:
        events, self._events = self._events, []
        end = time.monotonic() + self.engine.patience
        while not events:
            events = self._read(end - time.monotonic())
        return events

    def _read(self, seconds: float) -> list[Event]:
        if seconds <= 0:
            return [self.engine.expire()]
        self._socket.settimeout(seconds)
        try:
            return self.engine.receive(b"" if self.engine.closed else self._socket.recv(65536))
        except TimeoutError:
            return [self.engine.expire()]
        except OSError as error:
            return [self.engine.end(ConnectionClosed(f"the connection was lost: {error.strerror or error}"))]

    def _upgrade(self) -> TLSFailed | None:
        self._context = self._context or ssl.create_default_context()
        self._socket.settimeout(PATIENCE_HANDSHAKE)
        try:
            secured = self._context.wrap_socket(self._socket, server_hostname=self._name)
        except (OSError, ValueError) as error:
            failure = TLSFailed(f"no TLS handshake: {error}", "STARTTLS")
            self.engine.end(failure)
            return failure
        self._socket = secured
        cipher = secured.cipher()
        verified = self._context.verify_mode == ssl.CERT_REQUIRED and self._context.check_hostname
        self.engine.tls_established(TLSFacts(secured.version() or "", cipher[0] if cipher else "", verified))
        return None
