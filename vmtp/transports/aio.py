"""The client's engine on asyncio: it moves octets, keeps time, upgrades to TLS.

    connection = await open_connection("mail.example.org", 587)
    await connection.run(steps.connect(connection.engine, "host.example.org", "verified"))
    result = await connection.run(steps.send(connection.engine, envelope, content))
    await connection.close()

A content may read from a coroutine. TLS verifies host and certificate unless another `ssl.SSLContext` is given.

*Failures*: `ConnectionClosed` and `TimedOut` where no connection is made, otherwise what the procedure raises. A cancelled `run` leaves a
connection that can only be closed.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, TypeVar

from vmtp.client import steps
from vmtp.client.engine import Engine, Event, TLSFacts
from vmtp.client.states import PATIENCE_HANDSHAKE
from vmtp.client.steps import Need, Steps, Wait
from vmtp.errors import ConnectionClosed, TimedOut, TLSFailed

T = TypeVar("T")


async def open_connection(
    host: str, port: int, *, timeout: float = 30.0, context: ssl.SSLContext | None = None, name: str = ""
) -> Connection:
    """Connect. `name` is what the certificate must name, the host by default."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise TimedOut("no connection in time", "connect") from None
    except OSError as error:
        raise ConnectionClosed(f"no connection: {error.strerror or error}", "connect") from error
    return Connection(reader, writer, context, name or host)


class Connection:
    """One connection of a client."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext | None, name: str
    ) -> None:
        self.engine = Engine()
        self._reader = reader
        self._writer = writer
        self._context = context
        self._name = name
        self._events: list[Event] = []

    async def run(self, procedure: Steps[T]) -> T:
        """Run a procedure; returns its result, and raises what it raises."""
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                need = procedure.send(value) if error is None else procedure.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value = error = None
            if isinstance(need, Wait):
                try:
                    value = await need.what
                except Exception as raised:
                    error = raised
                continue
            await self._write()
            if need is Need.RECEIVE:
                value = await self._receive()
            elif need is Need.UPGRADE:
                error = await self._upgrade()

    async def close(self) -> None:
        """Say QUIT, and close. Never raises for what the peer does."""
        await self.run(steps.quit(self.engine))
        self.engine.end(ConnectionClosed("we closed the connection"))
        self._writer.transport.abort()

    async def _write(self) -> None:
        data = self.engine.bytes_to_send()
        if not data or self.engine.closed:
            return
        self._writer.write(data)
        try:
            async with asyncio.timeout(self.engine.patience):
                await self._writer.drain()
        except TimeoutError:
            self._events.append(self.engine.expire())
        except OSError as error:
            self._events.append(self.engine.end(_lost(error)))

    async def _receive(self) -> list[Event]:
        events, self._events = self._events, []
        if events or self.engine.closed:
            return events or self.engine.receive(b"")
        try:
            async with asyncio.timeout(self.engine.patience):
                while not events:
                    events = self.engine.receive(await self._reader.read(65536))
        except TimeoutError:
            return [self.engine.expire()]
        except OSError as error:
            return [self.engine.end(_lost(error))]
        return events

    async def _upgrade(self) -> TLSFailed | None:
        context = self._context = self._context or ssl.create_default_context()
        try:
            await self._writer.start_tls(context, server_hostname=self._name, ssl_handshake_timeout=PATIENCE_HANDSHAKE)
        except (OSError, ValueError, EOFError) as error:
            failure = TLSFailed(f"no TLS handshake: {error}", "STARTTLS")
            self.engine.end(failure)
            return failure
        secured: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        cipher = secured.cipher()
        verified = context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
        self.engine.tls_established(TLSFacts(secured.version() or "", cipher[0] if cipher else "", verified))
        return None


def _lost(error: OSError) -> ConnectionClosed:
    return ConnectionClosed(f"the connection was lost: {error.strerror or error}")
