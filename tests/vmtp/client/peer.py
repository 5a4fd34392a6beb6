"""A server that follows a script, and the driver that runs a procedure against it without a connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from vmtp.client.engine import Engine, Event, TLSFacts
from vmtp.client.steps import Need, Steps, Wait
from vmtp.errors import TLSFailed

T = TypeVar("T")

Turn = tuple[bytes, bytes | None]
"""What the server waits for, and what it says then; None for the end of the connection."""

FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", True)
EHLO = (
    b"EHLO me.example\r\n",
    b"250-relay.example greets you\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n",
)
PLAIN_EHLO = (b"EHLO me.example\r\n", b"250 relay.example\r\n")
GREETING = (b"", b"220 relay.example ESMTP\r\n")


class Peer:
    """Runs procedures of one engine. `step` is how many octets of a reply come at once, 0 for all."""

    def __init__(self, *script: Turn, step: int = 0, handshake: bool = True) -> None:
        self.engine = Engine()
        self.script = list(script)
        self.step = step
        self.handshake = handshake
        self.heard = b""
        self.writes: list[bytes] = []

    def run(self, procedure: Steps[T]) -> T:
        """Run a procedure to its end."""
        value: object = None
        error: Exception | None = None
        while True:
            try:
                need = procedure.send(value) if error is None else procedure.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            value = error = None
            self._write()
            if need is Need.RECEIVE:
                value = self._speak()
            elif need is Need.UPGRADE and self.handshake:
                self.engine.tls_established(FACTS)
            elif need is Need.UPGRADE:
                error = TLSFailed("bad certificate", "STARTTLS")
            elif isinstance(need, Wait):
                value = need.what.result()

    def _write(self) -> None:
        if data := self.engine.bytes_to_send():
            self.writes.append(data)
            self.heard += data

    def _speak(self) -> Sequence[Event]:
        if self.engine.closed:
            return self.engine.receive(b"")
        if not self.script:
            return [self.engine.expire()]
        awaited, reply = self.script.pop(0)
        if not self.heard.startswith(awaited):
            raise AssertionError(f"the server waited for {awaited!r} and heard {self.heard!r}")
        self.heard = self.heard[len(awaited) :]
        events: list[Event] = []
        for piece in [b""] if reply is None else self._pieces(reply):
            events += self.engine.receive(piece)
        return events

    def _pieces(self, reply: bytes) -> list[bytes]:
        step = self.step or len(reply)
        return [reply[n : n + step] for n in range(0, len(reply), step)]
