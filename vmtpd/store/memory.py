"""The store in memory: the same contract, for tests of those who use a store. What it holds ends with it.

All Deferreds have fired when they are returned. `trouble`, where it is set, is what every change fails with, as on a full or failing disk.

*Failures*: as IStore says; an id that exists raises ValueError by way of the Deferred.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from vmtpd.ids import Ids
from vmtpd.interfaces import ISink, IStore
from vmtpd.mail import (
    Addressee,
    Counts,
    Destination,
    Lease,
    Message,
    Outcome,
    QueueFilter,
    Row,
    Settlement,
    State,
    Submission,
    Wait,
)
from vmtpd.store.content import Inline
from vmtpd.store.history import MAX_ROWS, MAX_SHOWN, event_row, message_row, recipient_row

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Waiting:
    """A recipient and where it stands."""

    addressee: Addressee
    state: State
    due: float
    action: str | None = None
    reply: str | None = None
    destination: str | None = None

    def row(self) -> Row:
        """As an operator is shown it."""
        n, address, _, tries = self.addressee
        return recipient_row(n, address, self.state, self.action, self.due, tries, self.reply, self.destination)


@dataclass(slots=True)
class Kept:
    """A message with its recipients and its history."""

    message: Message
    submission: Submission
    recipients: list[Waiting]
    events: list[Row] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether a recipient is not done."""
        return any(each.state != "done" for each in self.recipients)

    def row(self) -> Row:
        """As an operator is shown it, without recipients."""
        each = self.message
        return message_row(
            each.id, each.arrived, each.expires, each.sender, each.size, each.client, self.submission.listener
        )

    def record(self, n: int, at: float, action: str, outcome: Outcome | None = None, next: float | None = None) -> None:
        """Write an event."""
        host, tls, reply = (outcome.host, outcome.tls, outcome.reply) if outcome else ("", "", "")
        self.events.append(event_row(at, n, action, host, tls, reply, next))


@implementer(ISink)
class MemorySink:
    """Takes one content, whatever its size."""

    def __init__(self) -> None:
        self._body = bytearray()

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take octets."""
        self._body += data
        return None

    def finish(self) -> Inline:
        """The content."""
        body = bytes(self._body)
        return Inline(body, sha256(body if body.endswith(b"\r\n") else body + b"\r\n").digest())

    def discard(self) -> None:
        """Forget what was written."""
        self._body.clear()


@implementer(IStore)
class MemoryStore:
    """A store that is open from the start. `wall` tells seconds since 1970."""

    def __init__(self, wall: Callable[[], float] = time.time, id: str = "0123456789abcdefghjk") -> None:
        self.id = id
        self.onBroken: Callable[[Exception], None] = lambda error: None
        self.trouble: Exception | None = None
        self._wall = wall
        self._ids = Ids(wall)
        self._kept: dict[int, Kept] = {}
        self._destinations: dict[str, Destination] = {}

    def newId(self) -> int:
        """A queue id, never given before, greater than all before."""
        return self._ids.next()

    def sink(self) -> MemorySink:
        """A place for one body."""
        return MemorySink()

    def add(
        self,
        submission: Submission,
        lease: bool,
        expires: float,
        destinations: Sequence[str] = (),
        wait: Wait | None = None,
    ) -> Deferred[Message]:
        """Store a message with all its recipients: leased to this process, or queued and due at `not_before`."""
        return self._change(self._add, submission, lease, expires, tuple(destinations), wait)

    def lease(self, limit: int, now: float, avoid: Collection[str] = ()) -> Deferred[list[Lease]]:
        """Lease at most `limit` recipients that are due, the longest due first, grouped by message."""
        return self._change(self._lease, limit, now, frozenset(avoid))

    def nextDue(self) -> Deferred[float | None]:
        """When the next queued recipient is due; None where nothing is queued."""
        return execute(lambda: min((each.due for _, each in self._all() if each.state == "queued"), default=None))

    def settle(
        self, settlements: Sequence[Settlement], reports: Sequence[Submission] = (), expires: float = 0.0
    ) -> Deferred[None]:
        """Record outcomes, with the reports that they call for. Reports are queued and due at once."""
        return self._change(self._settle, settlements, reports, expires)

    def wake(self, destination: str, now: float, limit: int) -> Deferred[int]:
        """Make at most `limit` recipients that wait at a destination due now. Returns how many."""

        def wake() -> int:
            there = [
                each
                for _, each in self._all()
                if each.state == "queued" and each.destination == destination and each.due > now
            ]
            there.sort(key=lambda each: each.due)
            for each in there[:limit]:
                each.due = now
            return len(there[:limit])

        return self._change(wake)

    def destinations(self) -> Deferred[list[Destination]]:
        """What is remembered of destinations."""
        return execute(lambda: sorted(self._destinations.values()))

    def remember(self, destination: Destination) -> Deferred[None]:
        """Remember the state of a destination."""
        return self._change(self._destinations.__setitem__, destination.name, destination)

    def counts(self) -> Deferred[Counts]:
        """The queue in numbers."""

        def counts() -> Counts:
            states = [each.state for _, each in self._all()]
            messages = [kept.message for kept in self._kept.values() if kept.open]
            return Counts(
                states.count("queued"),
                states.count("leased"),
                states.count("held"),
                len(messages),
                sum(each.size for each in messages),
                min((each.arrived for each in messages), default=0.0),
            )

        return execute(counts)

    def queue(self, which: QueueFilter, limit: int, after: int) -> Deferred[list[Row]]:
        """Open messages with their open recipients, oldest first, with ids above `after`."""

        def queue() -> list[Row]:
            rows: dict[int, Row] = {}
            for kept, each in self._meant(which):
                if kept.message.id > after:
                    row = rows.setdefault(kept.message.id, {**kept.row(), "recipients": [], "more": False})
                    row["recipients"].append(each.row())
            for row in rows.values():
                row["more"] = len(row["recipients"]) > MAX_SHOWN
                del row["recipients"][MAX_SHOWN:]
            return [rows[id] for id in sorted(rows)][: min(limit, MAX_ROWS)]

        return execute(queue)

    def story(self, id: int) -> Deferred[Row | None]:
        """All that is known of one message; None where the id is unknown."""

        def story() -> Row | None:
            kept = self._kept.get(id)
            if kept is None:
                return None
            return {
                **kept.row(),
                "recipients": [each.row() for each in kept.recipients[:MAX_ROWS]],
                "more": len(kept.recipients) > MAX_ROWS,
                "metadata": {"client": dict(kept.submission.metadata)} if kept.submission.metadata else {},
                "events": [dict(event) for event in kept.events[:MAX_ROWS]],
            }

        return execute(story)

    def hold(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes held. Returns how many recipients."""
        return self._change(self._each, which, ("queued",), "held", "held", now)

    def unhold(self, which: QueueFilter, now: float) -> Deferred[int]:
        """held becomes queued and due now. Returns how many recipients."""
        return self._change(self._each, which, ("held",), "queued", "released", now)

    def retry(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes due now. Returns how many recipients."""
        return self._change(self._each, which, ("queued",), "queued", "", now)

    def delete(self, which: QueueFilter, now: float) -> Deferred[int]:
        """queued and held become done, without a report, with an event `deleted`. Returns how many recipients."""
        return self._change(self._each, which, ("queued", "held"), "done", "deleted", now)

    def _change(self, change: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        def do() -> T:
            if self.trouble is not None:
                raise self.trouble
            return change(*args, **kwargs)

        return execute(do)

    def _all(self) -> Iterator[tuple[Kept, Waiting]]:
        return ((kept, each) for kept in self._kept.values() for each in kept.recipients)

    def _leased(self, id: int, n: int) -> Waiting | None:
        kept = self._kept.get(id)
        if kept is None or not 1 <= n <= len(kept.recipients) or kept.recipients[n - 1].state != "leased":
            return None
        return kept.recipients[n - 1]

    def _add(
        self,
        submission: Submission,
        lease: bool,
        expires: float,
        destinations: tuple[str, ...] = (),
        wait: Wait | None = None,
    ) -> Message:
        id, envelope, now = submission.id, submission.envelope, self._wall()
        if id in self._kept:
            raise ValueError("a message of this id is in the store")
        if not envelope.recipients:
            raise ValueError("a message without recipients would never be done")
        message = Message(
            id, submission.client, envelope.sender, envelope.params, now, expires, submission.head, submission.content
        )
        due = now if lease else submission.not_before or now
        waits_at = destinations or (None,) * len(envelope.recipients)
        recipients = [
            Waiting(Addressee(n, address, params), "leased" if lease else "queued", due, destination=destination)
            for n, ((address, params), destination) in enumerate(zip(envelope.recipients, waits_at, strict=True), 1)
        ]
        kept = self._kept[id] = Kept(message, submission, recipients)
        kept.record(0, now, "received", Outcome(0, "relayed", "", "", str(submission.client)))
        for each in recipients if wait else ():
            assert wait is not None
            each.due, each.action, each.reply = max(wait.due, due), "delayed", wait.reply
            kept.record(each.addressee.n, now, "delayed", Outcome(0, "delayed", "", wait.reply), each.due)
        return message

    def _lease(self, limit: int, now: float, avoid: frozenset[str]) -> list[Lease]:
        due = [
            (kept, each)
            for kept, each in self._all()
            if each.state == "queued" and each.due <= now and each.destination not in avoid
        ]
        due.sort(key=lambda pair: (pair[1].due, pair[0].message.id, pair[1].addressee.n))
        taken: dict[int, list[Addressee]] = {}
        for kept, each in due[:limit]:
            each.state = "leased"
            taken.setdefault(kept.message.id, []).append(each.addressee)
        return [Lease(self._kept[id].message, tuple(some)) for id, some in taken.items()]

    def _settle(self, settlements: Sequence[Settlement], reports: Sequence[Submission], expires: float) -> None:
        now = self._wall()
        for settlement in settlements:
            outcome, kept = settlement.outcome, self._kept.get(settlement.message)
            if kept is None:
                continue
            if settlement.warned:
                kept.message = replace(kept.message, warned=True)
            each = self._leased(settlement.message, outcome.n)
            if each is None:
                continue
            delayed = outcome.action == "delayed"
            known = delayed and not settlement.attempt and (each.action, each.reply) == ("delayed", outcome.reply)
            each.addressee = each.addressee._replace(tries=each.addressee.tries + settlement.attempt)
            each.action, each.reply = outcome.action, outcome.reply
            each.state = "queued" if delayed else "done"
            if delayed:
                each.due, each.destination = settlement.due, settlement.destination
            if not known:
                kept.record(outcome.n, now, outcome.action, outcome, settlement.due if delayed else None)
        for report in reports:
            self._add(report, False, expires)

    def _each(self, which: QueueFilter, states: Sequence[State], state: State, action: str, now: float) -> int:
        meant = [(kept, each) for kept, each in self._meant(which) if each.state in states]
        for kept, each in meant:
            each.state = state
            if state == "queued":
                each.due = now
            if state == "done":
                each.action = action
            if action:
                kept.record(each.addressee.n, now, action)
        return len(meant)

    def _meant(self, which: QueueFilter) -> Iterator[tuple[Kept, Waiting]]:
        """Recipients that are not done and that a filter means."""
        for kept, each in self._all():
            client = kept.message.client
            if (
                each.state != "done"
                and which.id in (0, kept.message.id)
                and which.state in ("", each.state)
                and which.destination in ("", each.destination)
                and which.client in ("", client.name, f"{client.kind} {client.name}")
                and (not which.sender or _matches("" if which.sender == "<>" else which.sender, kept.message.sender))
                and (not which.recipient or _matches(which.recipient, each.addressee.address))
            ):
                yield kept, each


def _matches(wanted: str, address: str) -> bool:
    """Whether an address is the wanted one, or of the wanted "@domain"."""
    wanted, address = wanted.lower(), address.lower()
    return address.endswith(wanted) if wanted.startswith("@") else address == wanted
