"""What an operator is shown: the open queue, and the story of one message.

Plain functions on the reader's connection (`database.ask`): they change nothing, and each has an end, by a LIMIT and by the clock.

*Failures*: TooMuch, by way of `ask`, when a filter has too much to look through.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import Any

from vmtpd import ids
from vmtpd.mail import Client, QueueFilter, Row
from vmtpd.store import metadata

MAX_ROWS = 1000
"""Messages in one answer of `queue`, recipients and events in one of `story`."""

MAX_SHOWN = 50
"""Recipients of a message that `queue` shows."""

_MESSAGE = "m.id, m.arrived, m.expires, m.sender, m.size, m.kind, m.client, m.listener"
_ADDRESS = "CASE WHEN ? THEN substr({0}, -?) ELSE {0} END = ? COLLATE NOCASE"
_RECIPIENT = "r.n, r.address, r.state, r.action, r.due, r.tries, r.reply, r.destination"


def of_message(which: QueueFilter) -> tuple[str, list[object]]:
    """A condition in SQL on a message `m`, and its values."""
    conditions, values = ["m.open > 0"], list[object]()
    if which.id:
        conditions.append("m.id = ?")
        values.append(which.id)
    if which.sender:
        conditions.append(_ADDRESS.format("m.sender"))
        values += _address("" if which.sender == "<>" else which.sender)
    if which.client:
        # As it is named, or as it is shown.
        conditions.append("? IN (m.client, m.kind || ' ' || m.client)")
        values.append(which.client)
    return " AND ".join(conditions), values


def of_recipient(which: QueueFilter) -> tuple[str, list[object]]:
    """A condition in SQL on a recipient `r` that is not done, and its values."""
    conditions, values = ["r.state <> 'done'"], list[object]()
    if which.state:
        conditions.append("r.state = ?")
        values.append(which.state)
    if which.recipient:
        conditions.append(_ADDRESS.format("r.address"))
        values += _address(which.recipient)
    if which.destination:
        conditions.append("r.destination = ?")
        values.append(which.destination)
    return " AND ".join(conditions), values


def queue(connection: Connection, which: QueueFilter, limit: int, after: int) -> list[Row]:
    """Open messages with those of their open recipients that the filter means, oldest first."""
    message, message_values = of_message(which)
    recipient, recipient_values = of_recipient(which)
    shown = (
        f"SELECT {_RECIPIENT} FROM recipient r WHERE r.message = ? AND {recipient} ORDER BY r.n LIMIT {MAX_SHOWN + 1}"
    )
    found = connection.execute(
        f"SELECT {_MESSAGE} FROM message m INDEXED BY message_open WHERE {message} AND m.id > ?"
        f" AND EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND {recipient}) ORDER BY m.id LIMIT ?",
        (*message_values, after, *recipient_values, max(0, min(limit, MAX_ROWS))),
    ).fetchall()
    rows = []
    for each in found:
        recipients = connection.execute(shown, (each[0], *recipient_values)).fetchall()
        row = _row(*each)
        row["recipients"] = [recipient_row(*recipient) for recipient in recipients[:MAX_SHOWN]]
        row["more"] = len(recipients) > MAX_SHOWN
        rows.append(row)
    return rows


def story(connection: Connection, id: int) -> Row | None:
    """All that is known of one message, None where the id is unknown."""
    found = connection.execute(f"SELECT {_MESSAGE} FROM message m WHERE m.id = ?", (id,)).fetchone()
    if found is None:
        return None
    recipients = connection.execute(
        f"SELECT {_RECIPIENT} FROM recipient r WHERE r.message = ? ORDER BY r.n LIMIT {MAX_ROWS + 1}", (id,)
    ).fetchall()
    events = connection.execute(
        "SELECT at, n, action, host, tls, reply, next FROM event INDEXED BY event_message WHERE message = ?"
        f" ORDER BY seq LIMIT {MAX_ROWS}",
        (id,),
    )
    row = _row(*found)
    row["recipients"] = [recipient_row(*recipient) for recipient in recipients[:MAX_ROWS]]
    row["more"] = len(recipients) > MAX_ROWS
    row["metadata"] = metadata.of(connection, id)
    row["events"] = [event_row(*event) for event in events]
    return row


def message_row(id: int, arrived: float, expires: float, sender: str, size: int, client: Client, listener: str) -> Row:
    """What is shown of a message itself."""
    return {
        "id": ids.encode(id),
        "arrived": arrived,
        "expires": expires,
        "sender": sender,
        "size": size,
        "client": str(client),
        "listener": listener,
    }


def event_row(at: float, n: int, action: str, host: str, tls: str, reply: str, next: float | None) -> Row:
    """What is shown of an event."""
    return {"at": at, "n": n, "action": action, "host": host, "tls": tls, "reply": reply, "next": next}


def recipient_row(
    n: int,
    address: str,
    state: str,
    action: str | None,
    due: float,
    tries: int,
    reply: str | None,
    destination: str | None,
) -> Row:
    """What is shown of a recipient; it is due only while it is queued."""
    return {
        "n": n,
        "address": address,
        "state": state,
        "action": action,
        "due": due if state == "queued" else None,
        "tries": tries,
        "reply": reply,
        "destination": destination,
    }


def _row(*columns: Any) -> Row:
    id, arrived, expires, sender, size, kind, client, listener = columns
    return message_row(id, arrived, expires, sender, size, Client(kind, client), listener)


def _address(wanted: str) -> list[object]:
    """The values of _ADDRESS: for "@domain" the tail of that length is compared, else the whole."""
    return [wanted.startswith("@"), len(wanted), wanted]
