"""A store and a queue at work for tests of the operator's side: they answer with fixed rows and note what they were asked."""

import io
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from vmtpd import ids
from vmtpd.admin import Admin
from vmtpd.config import Config, Limits, Listener, Local, Policy, Queue, Server
from vmtpd.interfaces import IContent, IQueueManager, IReader, ISink, IStore, ISubmit
from vmtpd.logs import Lines
from vmtpd.mail import Counts, Message, QueueFilter, Row, Submission
from vmtpd.metrics import new
from vmtpd.options import LISTEN

NOW = 1795341600.0
"""2026-11-22T10:00:00Z."""

ID = ids.encode(7 << 40)
NEXT = ids.encode(8 << 40)


def waiting(id: str = ID) -> Row:
    """A message that waits for its next try."""
    return {
        "id": id,
        "arrived": NOW - 7200,
        "expires": NOW + 86400,
        "sender": "ann@example.org",
        "size": 1500,
        "client": "192.168.1.20",
        "listener": "smtp",
        "recipients": [
            {
                "n": 1,
                "address": "bob@example.net",
                "state": "queued",
                "action": "delayed",
                "due": NOW + 240,
                "tries": 3,
                "reply": "connection refused",
                "destination": "mx.example.net",
            }
        ],
        "more": False,
    }


def told(id: str = ID) -> Row:
    """The whole story of that message."""
    tried = {"at": NOW - 60, "n": 1, "action": "delayed", "host": "mx.example.net[192.0.2.1]:25", "tls": "TLSv1.3"}
    events = [
        {"at": NOW - 7200, "n": 0, "action": "received", "host": "192.168.1.20", "tls": "", "reply": "", "next": None},
        tried | {"reply": "451 4.3.0 later", "next": NOW + 240},
    ]
    return waiting(id) | {"events": events}


@implementer(IContent)
class Octets:
    """A content in memory."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.size = len(octets)
        self.digest = b""

    def open(self) -> IReader:
        """Nobody reads it here."""
        raise OSError("not kept")


@implementer(ISink)
class Sink:
    """A sink that answers later."""

    def __init__(self) -> None:
        self.octets = b""
        self.discarded = False

    def write(self, data: bytes) -> Deferred[None]:
        """Take octets."""
        self.octets += data
        return succeed(None)

    def finish(self) -> Deferred[IContent]:
        """The content."""
        return succeed(cast(IContent, Octets(self.octets)))

    def discard(self) -> None:
        """Forget."""
        self.discarded = True


class Rooms:
    """The store, the queue at work and the way in, as far as an operator reaches them."""

    id = "store0store0store0st"
    lines: Lines

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.rows = [waiting(), waiting(NEXT)]
        self.stories = {ids.decode(ID): told()}
        self.changed: int | Deferred[int] = 1
        self.failure: Exception | None = None
        self.submitted: list[Submission] = []
        self.sinks: list[Sink] = []

    def answer(self, value: Any) -> Deferred[Any]:
        """Answer, or fail as told."""
        if self.failure:
            return fail(self.failure)
        return value if isinstance(value, Deferred) else succeed(value)

    def newId(self) -> int:
        """An id."""
        return 9 << 40

    def sink(self) -> Sink:
        """A sink."""
        self.sinks.append(Sink())
        return self.sinks[-1]

    def counts(self) -> Deferred[Counts]:
        """The queue in numbers."""
        return self.answer(Counts(2, 1, 0, 2, 3000, NOW - 7200))

    def queue(self, which: QueueFilter, limit: int, after: int) -> Deferred[list[Row]]:
        """Open messages."""
        self.asked.append(("queue", which, limit, after))
        return self.answer(self.rows[:limit])

    def story(self, id: int) -> Deferred[Row | None]:
        """One message."""
        return self.answer(self.stories.get(id))

    def _change(self, verb: str) -> Callable[[QueueFilter, float], Deferred[int]]:
        def change(which: QueueFilter, now: float) -> Deferred[int]:
            self.asked.append((verb, which, now))
            return self.answer(self.changed)

        return change

    def __getattr__(self, name: str) -> Any:
        if name in ("retry", "hold", "unhold", "delete"):
            return self._change(name)
        raise AttributeError(name)

    def kick(self) -> None:
        """Look into the store."""
        self.asked.append(("kick",))

    def destinations(self) -> list[Row]:
        """One that is down."""
        down = {
            "name": "mx.example.net",
            "state": "down",
            "until": NOW + 240,
            "failures": 3,
            "reply": "connection refused",
        }
        return [down | {"deliveries": 0, "waiting": 2}]

    def submit(self, submission: Submission) -> Deferred[Message]:
        """Take a message."""
        self.submitted.append(submission)
        return self.answer(None)


CONFIG = Config(
    "/etc/vmtpd/vmtpd.ini",
    Server("relay.example.org", admin="admin@example.org"),
    Policy(),
    (Listener("smtp", LISTEN.parse("*:25")),),
    Limits(),
    Queue(),
    Local(),
    (),
)


def administration(rooms: Rooms) -> tuple[Admin, io.StringIO]:
    """The verbs over such rooms, and the log they write."""
    log = io.StringIO()
    lines = Lines(log, lambda flush: None, wall=lambda: NOW)
    store, manager, submit = cast(IStore, rooms), cast(IQueueManager, rooms), cast(ISubmit, rooms)
    admin = Admin(CONFIG, store, manager, submit, new() | {"accepted": 5}, lines, lambda: NOW)
    rooms.lines = lines
    return admin, log
