"""The queue in numbers, kept beside it in the same commits: to count a million recipients takes half a second, to read a row nothing.

*Failures*: sqlite3.Error, judged by the writer.
"""

from __future__ import annotations

from sqlite3 import Connection

from vmtpd.mail import Counts

_CHANGE = (
    "UPDATE total SET queued = queued + ?, leased = leased + ?, held = held + ?,"
    " messages = messages + ?, octets = octets + ?, done = done + ?"
)
_READ = (
    "SELECT queued, leased, held, messages, octets,"
    " (SELECT arrived FROM message INDEXED BY message_open WHERE open > 0 ORDER BY id LIMIT 1) FROM total"
)


def change(
    connection: Connection,
    queued: int = 0,
    leased: int = 0,
    held: int = 0,
    messages: int = 0,
    octets: int = 0,
    done: int = 0,
) -> None:
    """Add to the numbers: recipients by state, open messages and their octets, messages that are done."""
    connection.execute(_CHANGE, (queued, leased, held, messages, octets, done))


def read(connection: Connection) -> Counts:
    """The numbers of what is open."""
    queued, leased, held, messages, octets, oldest = connection.execute(_READ).fetchone()
    return Counts(queued, leased, held, messages, octets, oldest or 0.0)


def done(connection: Connection) -> int:
    """How many messages that are done are remembered."""
    number: int = connection.execute("SELECT done FROM total").fetchone()[0]
    return number
