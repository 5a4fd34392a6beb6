"""The joints of the house: what one room may ask of another.

Each interface has few methods, a memory implementation for tests, and one contract test that every implementation passes.
A method that may wait returns a Deferred; one that says "or" answers at once where it can, since a Deferred costs on a hot path.

*Failures*: each method says what it raises, or what its Deferred fails with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from vmtpd.mail import (
        Counts,
        Destination,
        Facts,
        Lease,
        Message,
        Outcome,
        QueueFilter,
        Route,
        Row,
        Settlement,
        Submission,
        Unroutable,
        Verdict,
        Wait,
    )


class StoreFull(Exception):
    """No room for this message now: 452 4.3.1. What is stored stays, deliveries go on."""


class StoreBroken(Exception):
    """The disk failed: 451 4.3.0, no more writes, the daemon ends. Whether the last group was kept is unknown."""


class StoreUnusable(Exception):
    """The store cannot be opened, and one sentence says why: in use, damaged, of a newer daemon, or not ours to write."""


class TooMuch(Exception):
    """The question was too large for a store at work: ask for less."""


class IReader(Interface):
    """An open content, read from its begin to its end."""

    def read(n: int) -> bytes | Deferred[bytes]:
        """Up to n octets, b"" at the end. May fail with OSError."""

    def close() -> None:
        """Let go of it; more than once does no harm."""


class IContent(Interface):
    """The octets of a message as they came in. Immutable."""

    size: int = Attribute("Octets.")
    digest: bytes = Attribute("SHA-256 of the octets, CRLF added where they end without.")

    def open() -> IReader:
        """Begin to read."""


class ISink(Interface):
    """Where a body goes while it arrives."""

    def write(data: bytes) -> Deferred[None] | None:
        """Take octets. None: go on. A Deferred: pause the sender until it fires. It fails with StoreFull or StoreBroken."""

    def finish() -> IContent | Deferred[IContent]:
        """The content. What went to a file is durable (folder entry included) before this gives it."""

    def discard() -> None:
        """Forget what was written; more than once, or after finish() of a content that was never stored, does no harm."""


async def written(sink: ISink, octets: bytes) -> IContent:
    """A content of these octets, for what we write ourselves. Raises StoreFull or StoreBroken; then nothing is kept."""
    try:
        if (waiting := sink.write(octets)) is not None:
            await waiting
        content = sink.finish()
        return await content if isawaitable(content) else content
    except BaseException:
        sink.discard()
        raise


class IStore(Interface):
    """The queue and its history. Every Deferred of a change fires after its commit is durable, or fails with StoreFull or StoreBroken."""

    id: str = Attribute("The store's own name: random, made with it, 20 characters.")
    onBroken: Callable[[Exception], None] = Attribute("Called once when the disk failed.")

    def newId() -> int:
        """A queue id, never given before, greater than all before (ids.py)."""

    def sink() -> ISink:
        """A place for one body."""

    def add(
        submission: Submission,
        lease: bool,
        expires: float,
        destinations: Sequence[str] = (),
        wait: Wait | None = None,
    ) -> Deferred[Message]:
        """Store a message with all its recipients: leased to this process, or queued and due at `not_before`.

        `destinations` says, recipient by recipient, where each will wait; empty where that is not known. With `wait` all of them
        are queued and delayed from the start.
        """

    def lease(limit: int, now: float, avoid: Collection[str] = ()) -> Deferred[list[Lease]]:
        """Lease at most `limit` recipients that are due, the longest due first, grouped by message.

        Those that wait at a destination to `avoid` stay, so that a slow one never fills the room of the others.
        """

    def nextDue() -> Deferred[float | None]:
        """When the next queued recipient is due; None where nothing is queued."""

    def settle(
        settlements: Sequence[Settlement], reports: Sequence[Submission] = (), expires: float = 0.0
    ) -> Deferred[None]:
        """Record outcomes, with the reports that they call for, in one commit. Reports are queued and due at once."""

    def wake(destination: str, now: float, limit: int) -> Deferred[int]:
        """Make at most `limit` recipients that wait at a destination due now. Returns how many."""

    def destinations() -> Deferred[list[Destination]]:
        """What is remembered of destinations."""

    def remember(destination: Destination) -> Deferred[None]:
        """Remember the state of a destination."""

    def counts() -> Deferred[Counts]:
        """The queue in numbers."""

    def queue(which: QueueFilter, limit: int, after: int) -> Deferred[list[Row]]:
        """Open messages with their open recipients, oldest first, with ids above `after`. Rows as admin.py shows them.

        Fails with TooMuch where the filter matches too few of too many.
        """

    def story(id: int) -> Deferred[Row | None]:
        """All that is known of one message: itself, its recipients, its events in their order. None where the id is unknown."""

    def hold(which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes held. Returns how many recipients. What is leased stays: its delivery is under way."""

    def unhold(which: QueueFilter, now: float) -> Deferred[int]:
        """held becomes queued and due now. Returns how many recipients."""

    def retry(which: QueueFilter, now: float) -> Deferred[int]:
        """queued becomes due now. Returns how many recipients."""

    def delete(which: QueueFilter, now: float) -> Deferred[int]:
        """queued and held become done, without a report, with an event `deleted`. Returns how many recipients."""


class ISubmit(Interface):
    """Where a submission is handed in."""

    def submit(submission: Submission) -> Deferred[Message]:
        """Take responsibility. Fires when it is durable: only then may 250 be said. Fails with StoreFull or StoreBroken."""


class IQueueManager(Interface):
    """What the operator asks of the queue at work."""

    def kick() -> None:
        """Look into the store now, and try destinations that are down: somebody wants to see it happen."""

    def destinations() -> list[Row]:
        """The destinations in work or in trouble: name, state ("up" or "down"), until, failures, reply, deliveries, waiting."""


class IPolicy(Interface):
    """Who may do what. A Verdict is the reply; a Deferred of one makes the session wait, and no longer."""

    def connect(facts: Facts) -> Verdict:
        """Whether a client may speak to us at all. Every call that gives a positive verdict is followed by one of `disconnect`."""

    def disconnect(facts: Facts) -> None:
        """The session is over."""

    def mail(facts: Facts, sender: str) -> Verdict | Deferred[Verdict]:
        """Whether the client may send as this sender ("" for the null return path)."""

    def rcpt(facts: Facts, sender: str, recipient: str, count: int) -> Verdict | Deferred[Verdict]:
        """Whether we take this recipient, when `count` were taken before it."""

    def login(facts: Facts, authorization: str, username: str, password: str) -> Deferred[Verdict]:
        """Check credentials. A positive verdict is 235, and the name that logged in is its reason."""


class IRouter(Interface):
    """Which way a recipient leaves."""

    def route(address: str) -> Route | Unroutable | Deferred[Route | Unroutable]:
        """Choose, at each try anew. Never fails for expected trouble."""

    def destination(address: str) -> str:
        """The destination of a recipient's route, as far as it is known without asking anybody: the group that it waits in."""


class IDelivery(Interface):
    """An agent that takes mail out."""

    def deliver(lease: Lease, route: Route) -> Deferred[list[Outcome]]:
        """Try once. Gives an outcome for every recipient of the lease; never fails for expected trouble."""

    def close() -> Deferred[None]:
        """Let go of idle connections; what is under way ends by itself."""


class IResolver(Interface):
    """Names to addresses and mail exchangers."""

    def mx(domain: str) -> Deferred[list[tuple[int, str]]]:
        """(preference, host) of a domain, lowest first.

        [(0, domain)] where it has none (RFC 5321 section 5.1); [] for a null MX (RFC 7505).
        Fails with NoSuchDomain or ResolverTrouble.
        """

    def addresses(host: str) -> Deferred[list[str]]:
        """IPv6 and IPv4 addresses of a host. Fails with NoSuchDomain or ResolverTrouble."""


class NoSuchDomain(Exception):
    """The name does not exist, says a name server that knows."""


class ResolverTrouble(Exception):
    """No answer that could be trusted: ask again later."""
