"""A next hop of the torture: an SMTP server that writes down what arrives, and misbehaves as much as it is told to.

    python -m tests.faults.hop --port 2526 --ledger FILE [--delay MS] [--defer RATE] [--cut RATE] [--seed 1]

A message is in the ledger, durable, before its 250; so a message that is there and was not answered comes again, which is right.
RATE is the share of messages, from 0 to 1: `defer` gives one 4yz, to MAIL, to a recipient or to the content; `cut` ends the connection at
one of these points or just behind the ledger's line.

*Failures*: a connection that ends in the middle of a message leaves no trace of it. A disk that fails is answered 451.
"""

from __future__ import annotations

import argparse
import random
import socketserver
import time

from tests.faults.client import Ledger
from tests.faults.ledger import entry

POINTS = ("MAIL", "RCPT", "content")
BEHIND = "recorded"


class Cut(Exception):
    """The connection ends here."""


class Conversation(socketserver.StreamRequestHandler):
    """One connection."""

    server: Hop

    def setup(self) -> None:
        """Begin with nothing."""
        super().setup()
        self._chance = random.Random(f"{self.server.options.seed}/{self.server.take_number()}")
        self._reset()

    def handle(self) -> None:
        """Talk until either end goes."""
        try:
            self._say("220 hop.example ESMTP")
            while (line := self.rfile.readline(4096)).endswith(b"\n"):
                verb, _, rest = line.strip().partition(b" ")
                if verb.upper() == b"QUIT":
                    self._say("221 2.0.0 bye")
                    return
                self._obey(verb.upper(), rest)
        except (Cut, OSError):
            return

    def _obey(self, verb: bytes, rest: bytes) -> None:
        match verb:
            case b"EHLO":
                self._say("250-hop.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000")
            case b"MAIL":
                self._reset()
                self._plan()
                self._open = self._answer("MAIL")
            case b"RCPT" if self._open:
                if self._answer("RCPT"):
                    self._recipients.append(rest[rest.index(b"<") + 1 : rest.index(b">")].decode("ascii", "replace"))
            case b"DATA" if self._recipients:
                self._say("354 go on")
                self._receive()
                self._reset()
            case b"RSET" | b"NOOP":
                self._reset()
                self._say("250 2.0.0 ok")
            case _:
                self._say("503 5.5.1 not now")

    def _reset(self) -> None:
        self._open = False
        self._recipients: list[str] = []
        self._fault = self._at = ""

    def _plan(self) -> None:
        """What goes wrong with this message, and where."""
        options, dice = self.server.options, self._chance.random()
        if dice < options.cut:
            self._fault, self._at = "cut", self._chance.choice((*POINTS, BEHIND))
        elif dice < options.cut + options.defer:
            self._fault, self._at = "defer", self._chance.choice(POINTS)

    def _answer(self, point: str) -> bool:
        """Answer as planned. Returns whether it was yes."""
        fault = self._fault if point == self._at else ""
        if fault:
            self._fault = ""
        if fault == "cut":
            raise Cut
        self._say("450 4.2.0 later" if fault == "defer" else "250 2.0.0 ok")
        return not fault

    def _receive(self) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                raise Cut
            lines.append(line[1:] if line.startswith(b".") else line)
        if self._at == "content":
            self._answer("content")
            return
        try:
            self.server.ledger.write(entry(b"".join(lines), self._recipients))
        except OSError as error:
            self._say(f"451 4.3.0 {error.strerror}")
            return
        time.sleep(self.server.options.delay / 1000)
        self._answer(BEHIND)

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class Hop(socketserver.ThreadingTCPServer):
    """The server, a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ledger = Ledger(options.ledger)
        self._number = 0
        super().__init__(("127.0.0.1", options.port), Conversation)

    def take_number(self) -> int:
        """The number of a connection, for its chance."""
        self._number += 1
        return self._number


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--defer", type=float, default=0)
    parser.add_argument("--cut", type=float, default=0)
    parser.add_argument("--seed", default="1")
    with Hop(parser.parse_args()) as hop:
        hop.serve_forever()


if __name__ == "__main__":
    main()
