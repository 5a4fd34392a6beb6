"""vmtpd with a fault put into it from outside, to see that the judge finds it.

    python -m tests.faults.sabotaged KIND vmtpd --config FILE

    ack-before-commit   says 250 at once, and stores half a second later
    forget-queued       deletes at its start what was leased when it died
    corrupt-one         changes one octet of some contents
    forget-outcomes     does not write down what became of a delivery

*Failures*: exit status 2 where KIND is none of these.
"""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any

from twisted.internet.defer import Deferred, succeed

from vmtpd import qmgr
from vmtpd.mail import Message, Submission
from vmtpd.store import content, outcome, queue, sqlite

LATE = 0.5


def ack_before_commit() -> None:
    """The submission is acknowledged before it is stored."""
    submit = qmgr.QueueManager.submit

    def early(self: Any, submission: Submission) -> Deferred[Message]:
        self._clock.callLater(LATE, submit, self, submission)
        envelope = submission.envelope
        return succeed(
            Message(
                submission.id,
                submission.client,
                envelope.sender,
                envelope.params,
                0.0,
                9e9,
                submission.head,
                submission.content,
            )
        )

    qmgr.QueueManager.submit = early  # type: ignore[method-assign]


def forget_queued() -> None:
    """A start deletes what it should free."""

    def forget(connection: Connection) -> int:
        leased = [message for (message,) in connection.execute("SELECT message FROM recipient WHERE state = 'leased'")]
        connection.execute("UPDATE recipient SET state = 'done', owner = NULL WHERE state = 'leased'")
        outcome.close(connection, Counter(leased), 0.0, leased=-len(leased))
        return len(leased)

    queue.release_all = forget


def corrupt_one() -> None:
    """An octet in the middle of some small contents is another one."""
    begin = content.InlineReader.__init__

    def spoil(self: content.InlineReader, body: bytes) -> None:
        middle = len(body) // 2
        if body[middle] > 32 and sum(body[:middle]) % 10 == 0:
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        begin(self, body)

    content.InlineReader.__init__ = spoil  # type: ignore[method-assign]


def forget_outcomes() -> None:
    """Outcomes are said to be stored, and are not."""
    sqlite.SQLiteStore.settle = lambda *_: succeed(None)  # type: ignore[method-assign]


KINDS: dict[str, Callable[[], None]] = {
    "ack-before-commit": ack_before_commit,
    "forget-queued": forget_queued,
    "corrupt-one": corrupt_one,
    "forget-outcomes": forget_outcomes,
}


def main() -> None:
    """Put the fault in, and be vmtpd."""
    kind = sys.argv[1] if len(sys.argv) > 1 else ""
    if kind not in KINDS:
        print(f"write one of: {', '.join(KINDS)}", file=sys.stderr)
        sys.exit(2)
    KINDS[kind]()
    sys.argv = ["twist", *sys.argv[2:]]
    runpy.run_module("twisted", run_name="__main__")


if __name__ == "__main__":
    main()
