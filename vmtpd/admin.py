"""The operator's verbs, once, for whatever an operator uses: the control socket now.

What it answers is ready for JSON: times are RFC 3339 in UTC, ids are letters, addresses text.
Each change is logged with who asked for it.

*Failures*: `Refused` where the operator's request makes no sense, with the remedy. Trouble of the store comes through as it is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, get_args

from vmtp.envelope import Envelope, Recipient
from vmtpd import __version__, ids
from vmtpd.interfaces import written
from vmtpd.mail import Client, QueueFilter, Row, State, Submission
from vmtpd.options import ADDRESS

if TYPE_CHECKING:
    from vmtpd.config import Config
    from vmtpd.interfaces import IQueueManager, IStore, ISubmit
    from vmtpd.logs import Lines

VERBS = ("retry", "hold", "release", "delete")
"""What can be done to recipients in the queue."""

MAX_ROWS = 1000
"""Messages that one look at the queue shows at most."""

_TIMES = frozenset({"arrived", "expires", "due", "at", "next", "until", "oldest", "started"})


class Refused(Exception):
    """The request cannot be done as it stands; the text says why."""


class Admin:
    """The verbs over the store and the queue at work. `wall` tells seconds since the epoch."""

    def __init__(
        self,
        config: Config,
        store: IStore,
        manager: IQueueManager,
        submit: ISubmit,
        metrics: Mapping[str, int],
        lines: Lines,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._store = store
        self._manager = manager
        self._submit = submit
        self._metrics = metrics
        self._lines = lines
        self._wall = wall
        self._started = wall()

    async def status(self) -> Row:
        """How the daemon is: itself, the queue in numbers, destinations in work or in trouble, what was counted."""
        counts = await self._store.counts()
        return shown(
            {
                "version": __version__,
                "hostname": self._config.server.hostname,
                "config": self._config.path,
                "started": self._started,
                "listeners": [
                    {"name": one.name, "role": one.role, "tls": one.tls, "listen": [str(item) for item in one.listen]}
                    for one in self._config.listeners
                ],
                "queue": counts._asdict() | {"oldest": counts.oldest or None},
                "destinations": self._manager.destinations(),
                "metrics": dict(self._metrics),
            }
        )

    async def queue(self, which: QueueFilter, limit: int, after: str = "") -> Row:
        """Open messages, oldest first; `next` is where to go on (as `after`), None at the end."""
        limit = min(max(limit, 1), MAX_ROWS)
        rows = await self._store.queue(which, limit + 1, number(after) if after else 0)
        more = len(rows) > limit
        return {"messages": [shown(row) for row in rows[:limit]], "next": rows[limit - 1]["id"] if more else None}

    async def story(self, id: str) -> Row | None:
        """All that is known of a message, or None."""
        row = await self._store.story(number(id))
        return None if row is None else shown(row)

    async def change(self, verb: str, which: QueueFilter, who: str) -> int:
        """Retry, hold, release or delete what a filter means. Returns how many recipients that was."""
        now = self._wall()
        match verb:
            case "retry":
                count = await self._store.retry(which, now)
            case "hold":
                count = await self._store.hold(which, now)
            case "release":
                count = await self._store.unhold(which, now)
            case "delete":
                count = await self._store.delete(which, now)
            case _:
                raise Refused(f"there is no verb {verb[:20]!r}; there are {', '.join(VERBS)}")
        meant = {name: value for name, value in dataclasses.asdict(which).items() if value and name != "id"}
        self._lines.write(
            f"operator-{verb}", ids.encode(which.id) if which.id else "-", by=who, recipients=count, **meant
        )
        if count and verb in ("retry", "release"):
            self._manager.kick()
        return count

    async def send_test(self, to: str, who: str) -> str:
        """Hand in a short test message. Returns its id."""
        try:
            to = ADDRESS.parse(to)
        except ValueError as error:
            raise Refused(str(error)) from None
        server = self._config.server
        sender = server.admin or f"postmaster@{server.hostname}"
        number, now = self._store.newId(), self._wall()
        id = ids.encode(number)
        text = _TEST.format(
            sender=sender,
            to=to,
            date=formatdate(now),
            id=f"<{id}.{self._store.id}@{server.hostname}>",
            host=server.hostname,
            name=id,
        )
        envelope = Envelope(sender, (Recipient(to),))
        content = await written(self._store.sink(), text.replace("\n", "\r\n").encode("ascii", "xmlcharrefreplace"))
        await self._submit.submit(Submission(number, Client("daemon", "vmtpctl"), "control", envelope, b"", content))
        self._lines.write("operator-send-test", id, by=who, to=f"<{to}>")
        return id


_TEST = """\
From: <{sender}>
To: <{to}>
Date: {date}
Message-ID: {id}
Subject: Test of the mail relay {host}
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

This message was sent to try the way of mail through {host}.
If you read it, the way works. Its story is told there by: vmtpctl show {name}
"""


def queue_filter(given: Mapping[str, object]) -> QueueFilter:
    """Make a filter of what an operator gave. Raises `Refused` for names and values that mean nothing."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in FILTERS:
            raise Refused(f"there is no filter {name[:40]!r}; there are {', '.join(FILTERS)}")
        if not isinstance(value, str) or len(value) > 320 or not value.isprintable():
            raise Refused(f"{name} must be text of at most 320 characters")
        values[name] = value
    if values.get("state") and values["state"] not in get_args(State):
        raise Refused(f"state must be one of {', '.join(get_args(State)[:-1])}")
    return QueueFilter(**values)


FILTERS = ("state", "sender", "recipient", "destination", "client")
"""The filters by their names."""


def number(id: str) -> int:
    """The number of a queue id. Raises `Refused`."""
    try:
        return ids.decode(id)
    except ValueError:
        raise Refused(f"{id[:40]!r} is no queue id; they are 13 letters and digits") from None


def shown(row: Row) -> Row:
    """A row with its times as text, below it too."""
    return {name: _shown(name, value) for name, value in row.items()}


def _shown(name: str, value: object) -> object:
    if isinstance(value, dict):
        return shown(value)
    if isinstance(value, (list, tuple)):
        return [_shown(name, item) for item in value]
    if name in _TIMES and isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return value
