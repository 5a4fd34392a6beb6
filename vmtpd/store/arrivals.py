"""Messages that come in: all that one commit takes, written together.

Plain functions that take the writer's connection, inside its transaction; they may run twice (queue.py).

*Failures*: TypeError and ValueError for a submission that is none, sqlite3.IntegrityError for an id that exists; the writer sees to it that
such a one fails alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from vmtpd.mail import Message, Submission, Wait
from vmtpd.store import metadata, rows, totals
from vmtpd.store.content import Filed, Inline
from vmtpd.store.events import MAX_REPLY, Event, record

_MESSAGES = (
    "INSERT INTO message"
    " (id, kind, client, listener, sender, params, arrived, expires, warned, open, size, digest, file, head, body) {values}"
)
_RECIPIENTS = (
    "INSERT INTO recipient (message, n, address, params, state, owner, due, destination, tries, action, reply) {values}"
)


class Arrival(NamedTuple):
    """A submission, who leases it (0 for nobody: it is queued), when it came and expires, where its recipients will wait, and why."""

    submission: Submission
    owner: int
    now: float
    expires: float
    destinations: Sequence[str] = ()
    wait: Wait | None = None


def add(connection: Connection, arrivals: Sequence[Arrival | tuple[Any, ...]]) -> list[Message]:
    """Store messages with their recipients."""
    messages, recipients, events, stored = [], [], [], []
    leased = queued = octets = 0
    for submission, owner, now, expires, destinations, wait in arrivals:
        id, client, envelope = submission.id, submission.client, submission.envelope
        head, content, to = submission.head, submission.content, envelope.recipients
        if not isinstance(content, Inline | Filed):
            raise TypeError("a content comes from a sink of this store")
        if not to:
            raise ValueError("a message without recipients would never be done")
        size = len(head) + content.size
        octets += size
        messages.append(
            (
                id,
                client.kind,
                client.name,
                submission.listener,
                envelope.sender,
                packed(envelope.params),
                now,
                expires,
                0,
                len(to),
                size,
                content.digest,
                content.file,
                head,
                content.body,
            )
        )
        events.append(Event(id, 0, now, "received", str(client)))
        state, holder, due = ("leased", owner, now) if owner else ("queued", None, submission.not_before or now)
        action = reply = None
        if wait is not None:
            action, due, reply = "delayed", max(wait.due, due), wait.reply[:MAX_REPLY]
            events += [Event(id, n, now, action, reply=reply, next=due) for n in range(1, len(to) + 1)]
        waits_at = destinations or (None,) * len(to)
        recipients += [
            (id, n, address, packed(params), state, holder, due, destination, 0, action, reply)
            for n, ((address, params), destination) in enumerate(zip(to, waits_at, strict=True), 1)
        ]
        if owner:
            leased += len(to)
        else:
            queued += len(to)
        stored.append(Message(id, client, envelope.sender, envelope.params, now, expires, head, content))
    rows.write(connection, _MESSAGES, messages)
    rows.write(connection, _RECIPIENTS, recipients)
    record(connection, events)
    for submission, *_ in arrivals:
        if submission.metadata:
            metadata.insert(connection, submission.id, "client", submission.metadata)
    totals.change(connection, queued=queued, leased=leased, messages=len(messages), octets=octets)
    return stored


def packed(params: Mapping[str, str]) -> str:
    """Parameters as a column holds them."""
    return json.dumps(dict(params)) if params else ""
