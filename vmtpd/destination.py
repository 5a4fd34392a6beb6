"""A destination: the group of recipients that leave by one way, and what we know of that way.

Where it stands: qmgr keeps one `Group` for each destination at work. It says how many deliveries may go there at once, and from when on
after trouble. A host that fails costs one place of concurrency each time; when none is left, the destination is down: one delivery
probes it after a wait that doubles, and everything else stays in the store until a probe succeeds.

*Failures*: none; this is arithmetic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vmtpd.mail import Destination, Lease, Route
from vmtpd.retry import Backoff

START = 5
"""Deliveries at once to a destination that has just come up; each success allows one more."""


@dataclass(slots=True)
class Group:
    """The deliveries to one destination: those that wait for their turn, and how many are under way."""

    name: str
    most: int
    backoff: Backoff
    waiting: deque[tuple[Lease, Route]] = field(default_factory=deque)
    active: int = 0
    limit: int = START
    failures: int = 0
    until: float = 0.0
    reply: str = ""

    @property
    def down(self) -> bool:
        """Whether the last thing heard of this destination was trouble."""
        return self.failures > 0

    @property
    def idle(self) -> bool:
        """Whether nothing needs this group in memory."""
        return not (self.waiting or self.active or self.down)

    def closed(self, now: float) -> bool:
        """Whether nothing may go there before `until`."""
        return self.down and now < self.until

    def may_start(self, now: float) -> bool:
        """Whether one more delivery may begin."""
        return bool(self.waiting) and self.active < (1 if self.down else self.limit) and not self.closed(now)

    def succeeded(self) -> bool:
        """The host is at work. Tells whether that is news."""
        was_down = self.down
        if was_down:
            self.failures, self.until, self.reply, self.limit = 0, 0.0, "", min(START, self.most)
        elif self.limit < self.most:
            self.limit += 1
        return was_down

    def failed(self, now: float, reply: str, chance: float) -> bool:
        """The host failed us in a delivery that is over now. Tells whether the destination is down by that."""
        if self.active > 0 and not self.down:
            self.limit = self.active
            return False
        self.failures += 1
        self.until = now + self.backoff.wait(self.failures, chance)
        self.reply = reply
        return True

    def probe(self, now: float) -> None:
        """Somebody wants it tried now."""
        self.until = min(self.until, now)

    def remembered(self) -> Destination:
        """What the store keeps of this."""
        return Destination(self.name, "down" if self.down else "up", self.until, self.failures, self.reply)
