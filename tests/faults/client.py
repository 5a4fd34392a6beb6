"""A client of the torture: sends messages over several sessions, and keeps a ledger of what it was promised.

    python -m tests.faults.client --port 2525 --ledger FILE [--seed 1] [--sessions 10] [--messages-per-second 40]

A process of its own with an SMTP of its own, so that no mistake of ours is made on both ends. Runs until SIGTERM, and then ends
each session behind the message under way. Every other session sends its envelope pipelined.

*Failures*: a connection that ends, or a refusal, costs that message its promise, and the session begins anew. A disk that fails
ends it all.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Sequence
from hashlib import sha256

from tests.faults.ledger import MARK

PAUSE = 0.05
"""Seconds before a new connection."""

TIMEOUT = 30.0

_BREAKS = bytes(range(32)) + b"\x7f"


class Ledger:
    """A file of lines; each is durable when `write` returns."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """Append a line."""
        with self._lock:
            os.write(self._descriptor, line.encode())
            os.fsync(self._descriptor)


class Refused(Exception):
    """The server said no."""


class Session:
    """One connection."""

    def __init__(self, port: int, pipelined: bool) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._replies = self._socket.makefile("rb")
        self._pipelined = pipelined
        self._expect(b"220")
        self._say([b"EHLO client.example"], b"250")

    def send(self, sender: str, recipients: Sequence[str], content: bytes) -> None:
        """One message. Returns behind its 250; raises Refused or OSError."""
        envelope = [f"MAIL FROM:<{sender}> BODY=8BITMIME".encode()]
        envelope += [f"RCPT TO:<{recipient}>".encode() for recipient in recipients]
        if self._pipelined:
            self._socket.sendall(b"\r\n".join([*envelope, b"DATA", b""]))
            for _ in envelope:
                self._expect(b"250")
        else:
            self._say(envelope, b"250")
            self._socket.sendall(b"DATA\r\n")
        self._expect(b"354")
        self._socket.sendall(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self._expect(b"250")

    def close(self) -> None:
        """End it."""
        self._replies.close()
        self._socket.close()

    def _say(self, commands: Sequence[bytes], code: bytes) -> None:
        for command in commands:
            self._socket.sendall(command + b"\r\n")
            self._expect(code)

    def _expect(self, code: bytes) -> None:
        while True:
            line = self._replies.readline(2048)
            if not line.endswith(b"\n"):
                raise ConnectionResetError("the server is gone")
            if line[3:4] != b"-":
                break
        if not line.startswith(code):
            raise Refused(line)


def content(id: str, chance: random.Random) -> bytes:
    """A message: most are small, some are scans; 8-bit, and with lines that begin with dots."""
    low, high = chance.choices(((200, 4000), (4000, 64_000), (64_000, 300_000)), (75, 15, 10))[0]
    size = chance.randint(low, high)
    lines = [MARK + id.encode(), b"From: <client@client.example>", b"Subject: torture", b""]
    lines += chance.sample((b".", b"..", b".a dot", b"", b" "), chance.randint(0, 3))
    octets = chance.randbytes(size).translate(None, _BREAKS)
    at = 0
    while at < len(octets):
        end = at + chance.randint(1, 900)
        lines.append(octets[at:end])
        at = end
    return b"\r\n".join([*lines, id.encode(), b""])


def work(options: argparse.Namespace, number: int, ledger: Ledger, over: threading.Event) -> None:
    """One session after the other, until it is over."""
    chance = random.Random(f"{options.seed}/{number}")
    pause = options.sessions / options.messages_per_second
    session: Session | None = None
    count = 0
    due = time.monotonic() + chance.uniform(0, pause)
    while not over.wait(max(due - time.monotonic(), 0)):
        due = max(due + chance.uniform(0.2, 1.8) * pause, time.monotonic() - 5 * pause)
        count += 1
        # A run that goes on with the same ledger gives other ids.
        id = f"{options.seed}-{os.getpid()}-{number}-{count}"
        domains = chance.choices(("one.example", "two.example", "three.example"), k=chance.randint(1, 3))
        recipients = [f"reader{n}@{domain}" for n, domain in enumerate(domains)]
        message = content(id, chance)
        try:
            if session is None:
                session = Session(options.port, pipelined=bool(number % 2))
            ledger.write(f"offered {id} {sha256(message).hexdigest()} {' '.join(recipients)}\n")
            session.send("client@client.example", recipients, message)
            ledger.write(f"acknowledged {id}\n")
        except (OSError, Refused):
            if session is not None:
                session.close()
                session = None
            over.wait(PAUSE)
    if session is not None:
        session.close()


def main() -> None:
    """Send until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--messages-per-second", type=float, default=40)
    options = parser.parse_args()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    ledger = Ledger(options.ledger)
    threads = [
        threading.Thread(target=work, args=(options, number, ledger, over)) for number in range(options.sessions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
