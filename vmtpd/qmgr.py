"""The queue manager: takes what is due out of the store, and hands it to the agents, in bounded memory.

Where it stands: between the store and the agents. A submission that there is room for is born leased: it is stored, and goes on from
memory without being read back. Everything else is born queued and leased when it is due. At most `window` recipients are in
work, and none of the destinations may hold more than half of them, so that a slow one never stops the others.

Each leased recipient gets a route, joins the group of its destination, is delivered when the group has a place, and is settled. A
destination that is down keeps nothing here: its mail goes back to the store until a probe succeeds (destination.py).

*Failures*: an agent that fails by a fault of its own delays its recipients, and the fault is logged. What is leased when the process dies
is queued again at the next start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from vmtpd.destination import START, Group
from vmtpd.interfaces import IDelivery, IQueueManager, IRouter, IStore, ISubmit, StoreBroken
from vmtpd.mail import INLINE, Addressee, Destination, Lease, Message, Outcome, Route, Row, Submission, Unroutable, Wait
from vmtpd.outcomes import Chance, Outcomes
from vmtpd.retry import Backoff

MAX_OCTETS = 16 * 1024 * 1024
"""Contents in hand; beyond it mail is born queued."""
BATCH = 200
"""Recipients leased in one go."""
LONGEST_NAP = 30.0
"""Seconds after which the store is asked in any case: clocks may step."""
SOON = 60.0
"""Seconds until a recipient is due again whose host failed while others were served."""
WAKE = 1000
"""Recipients woken in one commit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Recipients in work, deliveries at once in total and to one destination, seconds of a message's life."""

    window: int = 1000
    deliveries: int = 100
    per_destination: int = 20
    lifetime: float = 432000.0


@implementer(ISubmit, IQueueManager)
class QueueManager:
    """The queue at work. `outcomes` makes what settles; `probes` is the back-off of destinations that are down."""

    log = Logger()

    def __init__(
        self,
        store: IStore,
        router: IRouter,
        agents: Mapping[str, IDelivery],
        limits: Limits,
        probes: Backoff,
        *,
        outcomes: Callable[[Callable[[Lease], None], Callable[[float], None]], Outcomes],
        clock: IReactorTime,
        wall: Callable[[], float],
        chance: Chance,
        metrics: dict[str, int],
    ) -> None:
        self._store = store
        self._router = router
        self._agents = agents
        self._limits = limits
        self._probes = probes
        self._outcomes = outcomes(self._settled, self._await)
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._metrics = metrics
        self._groups: dict[str, Group] = {}
        self._stalled: deque[Group] = deque()
        self._fresh: list[Lease] = []
        self._leased = 0
        self._octets = 0
        self._active = 0
        self._looking = False
        self._again = False
        self._hungry = False
        self._timer: IDelayedCall | None = None
        self._stopping = False
        self._quiet: Deferred[None] | None = None

    # Start and stop.

    async def start(self) -> None:
        """Take up what is known of destinations, and begin."""
        for known in await self._store.destinations():
            if known.state == "down":
                group = self._group(known.name)
                group.failures, group.until, group.reply = known.failures, known.until, known.reply
        self._look()

    def stop(self) -> Deferred[None]:
        """Begin nothing more. Fires when what is under way is settled; what waits stays leased, and is free at the next start."""
        self._stopping = True
        self._cancel()
        self._quiet = Deferred()
        self._hush()
        return self._quiet.addCallback(lambda _: self._outcomes.drain())

    def _hush(self) -> None:
        if self._quiet and not self._quiet.called and not self._active and not self._looking:
            self._quiet.callback(None)

    # In: what sessions submit, what the store has.

    def submit(self, submission: Submission) -> Deferred[Message]:
        recipients = submission.envelope.recipients
        destinations = [self._router.destination(recipient.address) for recipient in recipients]
        wait = self._wait(destinations)
        lease = wait is None and self._has_room(submission, destinations)
        if lease:
            self._leased += len(recipients)
            self._octets += _inline(submission.content.size)
        expires = self._wall() + self._limits.lifetime
        stored = self._store.add(submission, lease, expires, destinations, wait)
        return stored.addCallbacks(self._stored, self._not_stored, (submission, lease, wait), {}, (submission, lease))

    def _wait(self, destinations: list[str]) -> Wait | None:
        """Until when and why a message has to wait that goes only where all is known to be down."""
        group = self._groups.get(destinations[0])
        if group is None or not group.closed(self._wall()) or destinations.count(group.name) < len(destinations):
            return None
        return Wait(group.until, group.reply)

    def _has_room(self, submission: Submission, destinations: list[str]) -> bool:
        if self._stopping or submission.not_before or self._octets > MAX_OCTETS:
            return False
        return self._leased + len(destinations) <= self._limits.window and not any(map(self._is_full, destinations))

    def _is_full(self, name: str) -> bool:
        group = self._groups.get(name)
        return group is not None and len(group.waiting) >= self._limits.window // 2

    def _stored(self, message: Message, submission: Submission, lease: bool, wait: Wait | None) -> Message:
        if lease:
            recipients = submission.envelope.recipients
            addressees = tuple(Addressee(n, r.address, r.params) for n, r in enumerate(recipients, 1))
            self._fresh.append(Lease(message, addressees))
            if len(self._fresh) == 1:
                # In a turn of their own: the client gets its 250 first.
                self._clock.callLater(0, self._take_fresh)
        elif wait is None:
            self._look()
        return message

    def _not_stored(self, failure: Failure, submission: Submission, lease: bool) -> Failure:
        if lease:
            self._leased -= len(submission.envelope.recipients)
            self._octets -= _inline(submission.content.size)
        return failure

    def _take_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        for lease in fresh:
            self._take(lease)

    def kick(self) -> None:
        now = self._wall()
        for group in list(self._groups.values()):
            group.probe(now)
            self._pump(group)
        self._look()

    def _look(self) -> None:
        """Lease what is due, until there is no room or nothing more."""
        if self._looking:
            self._again = True
        elif not self._stopping:
            self._looking = True
            self._cancel()
            looked = Deferred.fromCoroutine(self._lease_due())
            looked.addErrback(self._look_failed)

    async def _lease_due(self) -> None:
        try:
            while not self._stopping:
                self._again = False
                room = min(self._limits.window - self._leased, BATCH)
                full = [name for name in self._groups if self._is_full(name)]
                crowded = room <= 0 or self._octets > MAX_OCTETS
                self._hungry = crowded or bool(full)
                if crowded:
                    return
                leases = await self._store.lease(room, self._wall(), full)
                for lease in leases:
                    self._leased += len(lease.recipients)
                    self._octets += _inline(lease.message.content.size)
                    self._take(lease)
                if sum(len(lease.recipients) for lease in leases) < room and not self._again:
                    due = await self._store.nextDue()
                    if not self._again:
                        self._sleep(due if not full else None)
                        return
        finally:
            self._looking = False
            self._hush()

    def _look_failed(self, failure: Failure) -> None:
        if not failure.check(StoreBroken):
            self.log.failure("the store could not be asked for what is due", failure)
            self._sleep(None)

    def _await(self, due: float) -> None:
        """Something in the store is due then: look no later."""
        nap = max(due - self._wall(), 0)
        if self._looking or not nap:
            self._look()
        elif self._timer is None or self._timer.getTime() - self._clock.seconds() > nap:
            self._sleep(due)

    def _sleep(self, due: float | None) -> None:
        if self._stopping:
            return
        self._cancel()
        nap = LONGEST_NAP if due is None else min(max(due - self._wall(), 0.01), LONGEST_NAP)
        self._timer = self._clock.callLater(nap, self._look)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Through: a route for each recipient, a group for each destination.

    def _take(self, lease: Lease) -> None:
        if len(lease.recipients) == 1:
            route = self._router.route(lease.recipients[0].address)
            if not isinstance(route, Deferred):
                self._place(lease, route)
                return
            route.addCallback(lambda found: self._place(lease, found))
            route.addErrback(self._unroutable, lease)
            return
        routes = [self._router.route(recipient.address) for recipient in lease.recipients]
        if any(isinstance(route, Deferred) for route in routes):
            waiting = [route if isinstance(route, Deferred) else succeed(route) for route in routes]
            found = gatherResults(waiting, consumeErrors=True)
            found.addCallback(lambda routes: self._spread(lease, routes))
            found.addErrback(self._unroutable, lease)
        else:
            self._spread(lease, routes)  # type: ignore[arg-type]

    def _spread(self, lease: Lease, routes: list[Route | Unroutable]) -> None:
        """Divide a message among the ways of its recipients."""
        ways: dict[Route | Unroutable, list[Addressee]] = {}
        for recipient, route in zip(lease.recipients, routes, strict=True):
            ways.setdefault(route, []).append(recipient)
        self._octets += (len(ways) - 1) * _inline(lease.message.content.size)
        for route, recipients in ways.items():
            self._place(Lease(lease.message, tuple(recipients)), route)

    def _place(self, lease: Lease, route: Route | Unroutable) -> None:
        if isinstance(route, Unroutable):
            outcomes = [Outcome(r.n, route.action, route.status, route.text) for r in lease.recipients]
            self._outcomes.record(lease, outcomes, "")
            return
        group = self._group(route.destination)
        if group.closed(self._wall()):
            self._put_off(group, lease)
        else:
            group.waiting.append((lease, route))
            self._pump(group)

    def _unroutable(self, failure: Failure, lease: Lease) -> None:
        self.log.failure("no route could be found", failure)
        self._place(lease, Unroutable("delayed", "4.3.0", "an internal error, see the log"))

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            most = self._limits.per_destination
            group = self._groups[name] = Group(name, most, self._probes, limit=min(START, most))
        return group

    def _put_off(self, group: Group, lease: Lease) -> None:
        """Back to the store, untried: the destination is known to be down."""
        outcomes = [Outcome(r.n, "delayed", "4.4.1", group.reply, scope="host") for r in lease.recipients]
        self._outcomes.record(lease, outcomes, group.name, due=group.until, attempt=False)

    # Out: deliveries.

    def _pump(self, group: Group) -> None:
        now = self._wall()
        while group.may_start(now) and not self._stopping:
            if self._active >= self._limits.deliveries:
                if group not in self._stalled:
                    self._stalled.append(group)
                return
            self._deliver(group, *group.waiting.popleft())

    def _deliver(self, group: Group, lease: Lease, route: Route) -> None:
        group.active += 1
        self._active += 1
        self._metrics["deliveries"] = self._active
        delivered = self._agents[route.agent].deliver(lease, route)
        delivered.addErrback(self._agent_failed, lease)
        delivered.addCallback(self._delivered, group, lease)

    def _agent_failed(self, failure: Failure, lease: Lease) -> list[Outcome]:
        self.log.failure("a delivery failed by a fault of its own", failure)
        return [Outcome(r.n, "delayed", "4.3.0", "an internal error, see the log") for r in lease.recipients]

    def _delivered(self, outcomes: list[Outcome], group: Group, lease: Lease) -> None:
        group.active -= 1
        self._active -= 1
        self._metrics["deliveries"] = self._active
        now = self._wall()
        trouble = next(
            (outcome for outcome in outcomes if outcome.scope == "host" and outcome.action == "delayed"), None
        )
        due = 0.0
        if trouble is None:
            if group.succeeded():
                self._remember(group.remembered())
                self._wake(group.name)
        elif group.failed(now, trouble.reply, self._chance()):
            due = group.until
            self._remember(group.remembered())
            waiting, group.waiting = group.waiting, deque()
            for waiting_lease, _ in waiting:
                self._put_off(group, waiting_lease)
        else:
            due = now + SOON
        self._outcomes.record(lease, outcomes, group.name, due=due)
        self._pump(group)
        while self._stalled and self._active < self._limits.deliveries and not self._stopping:
            self._pump(self._stalled.popleft())
        if group.idle:
            self._groups.pop(group.name, None)
        self._hush()

    def _remember(self, destination: Destination) -> None:
        self.log.info(
            "{name} is {state}: {reply}", name=destination.name, state=destination.state, reply=destination.reply
        )
        self._store.remember(destination).addErrback(self._forgotten, "a destination was not remembered")

    def _wake(self, name: str) -> None:
        """What waits for a destination that is up again is due now."""

        def woken(count: int) -> None:
            self._look()
            if count == WAKE:
                self._wake(name)

        waking = self._store.wake(name, self._wall(), WAKE).addCallback(woken)
        waking.addErrback(self._forgotten, "what waits for a destination was not woken")

    def _forgotten(self, failure: Failure, what: str) -> None:
        if not failure.check(StoreBroken):
            self.log.failure(what, failure)

    def _settled(self, lease: Lease) -> None:
        self._leased -= len(lease.recipients)
        self._octets -= _inline(lease.message.content.size)
        if self._hungry and self._leased <= self._limits.window // 4:
            self._hungry = False
            self._look()

    def destinations(self) -> list[Row]:
        return [
            {
                "name": group.name,
                "state": "down" if group.down else "up",
                "until": group.until or None,
                "failures": group.failures,
                "reply": group.reply or None,
                "deliveries": group.active,
                "waiting": len(group.waiting),
            }
            for group in self._groups.values()
        ]


def _inline(size: int) -> int:
    return size if size <= INLINE else 0
