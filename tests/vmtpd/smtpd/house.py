"""A house for sessions under test: a store in memory, a clock that stands still, and what was submitted."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from vmtp.server import Limits
from vmtpd import metrics
from vmtpd.interfaces import ISubmit
from vmtpd.local import Local
from vmtpd.logs import Lines
from vmtpd.mail import Message, Submission
from vmtpd.policy.limits import Sessions
from vmtpd.policy.relay import RelayPolicy
from vmtpd.smtpd.door import Door, House, Listening, Network
from vmtpd.smtpd.session import Session
from vmtpd.store.memory import MemoryStore

NOW = 1_800_000_000.0


@implementer(ISubmit)
class Submissions:
    """Takes submissions: at once, or when the test says so."""

    def __init__(self) -> None:
        self.taken: list[Submission] = []
        self.waiting: list[Deferred[Message]] = []
        self.at_once = True

    def submit(self, submission: Submission) -> Deferred[Message]:
        self.taken.append(submission)
        if self.at_once:
            return succeed(stored(submission))
        waiting: Deferred[Message] = Deferred()
        self.waiting.append(waiting)
        return waiting

    def bodies(self) -> list[bytes]:
        """The contents that were submitted."""
        bodies = []
        for submission in self.taken:
            body = submission.content.open().read(1 << 20)
            assert isinstance(body, bytes)
            bodies.append(body)
        return bodies


def stored(submission: Submission) -> Message:
    """The message that a store makes of a submission."""
    return Message(
        submission.id,
        submission.client,
        submission.envelope.sender,
        submission.envelope.params,
        NOW,
        NOW + 1,
        submission.head,
        submission.content,
    )


class TestHouse:
    """Doors, sessions and their transports."""

    def __init__(self, check: Any = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.log = io.StringIO()
        self.metrics = metrics.new()
        self.lines = Lines(self.log, lambda flush: None, wall=lambda: NOW)
        self.submissions = Submissions()
        self.store = MemoryStore(wall=lambda: NOW)
        self.sessions = Sessions(10, 3)
        local = Local(
            hostname="mx.example.org",
            origin="example.org",
            domains=frozenset({"example.org"}),
            mailboxes=frozenset({"ann", "bob"}),
        )
        self.house = House(
            hostname="mx.example.org",
            local=local,
            store=self.store,
            submit=self.submissions,
            policy=RelayPolicy(local, self.sessions, 5, check),
            clock=self.clock,
            wall=lambda: NOW,
            lines=self.lines,
            metrics=self.metrics,
        )

    def door(self, networks: tuple[Network, ...] = (), limits: Limits | None = None, **listening: Any) -> Door:
        """A door that trusts some networks."""
        listening = {"name": "lan", "role": "relay", "networks": networks} | listening
        return Door(self.house, Listening(**listening), limits or Limits(size=2000, line=512, errors=8))

    def connect(self, door: Door, host: str = "127.0.0.1") -> tuple[Session, StringTransport]:
        """A client at an address comes in."""
        session = door.buildProtocol(IPv4Address("TCP", host, 4242))
        assert isinstance(session, Session)
        transport = StringTransport()
        session.makeConnection(transport)
        return session, transport

    def logged(self) -> str:
        """What is in the log."""
        self.lines.flush()
        return self.log.getvalue()
