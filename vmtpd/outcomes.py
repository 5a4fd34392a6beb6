"""Outcomes on their way into the store: retried, given up, reported, and committed together.

Where it stands: qmgr hands over what became of each recipient. Here a delay gets its next try, a message beyond its lifetime fails,
and what failed for good, or waits too long, gets a report. All that gathers while one commit runs goes into the next one, a failure in
the same commit as its report: there is no instant at which one is known and the other lost.

*Failures*: a store without room is asked again in a second, since outcomes make room; a broken one ends the daemon elsewhere. A
header that cannot be read leaves the report without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from vmtp.envelope import Envelope, Recipient
from vmtp.message import Header
from vmtpd import bounce
from vmtpd.ids import encode
from vmtpd.interfaces import IStore, StoreBroken, StoreFull, written
from vmtpd.logs import Lines
from vmtpd.mail import Addressee, Client, Lease, Message, Outcome, Settlement, Submission
from vmtpd.retry import Backoff

REPORT_AGAIN = 60.0
"""Seconds until a report that could not be made is tried again."""

Chance = Callable[[], float]
"""Random, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a message is tried: the back-off, seconds until its sender is warned (0: never), seconds of its lifetime."""

    backoff: Backoff
    warn_after: float
    lifetime: float


class Outcomes:
    """Settles what deliveries gave. `settled` hears of each lease that is settled, `awaited` when the store has something due again."""

    log = Logger()

    def __init__(
        self,
        store: IStore,
        patience: Patience,
        *,
        hostname: str,
        admin: str,
        clock: IReactorTime,
        wall: Callable[[], float],
        chance: Chance,
        lines: Lines,
        metrics: dict[str, int],
        settled: Callable[[Lease], None],
        awaited: Callable[[float], None],
    ) -> None:
        self._store = store
        self._patience = patience
        self._hostname = hostname
        self._admin = admin
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._lines = lines
        self._metrics = metrics
        self._settled = settled
        self._awaited = awaited
        self._settlements: list[Settlement] = []
        self._reports: list[Submission] = []
        self._leases: list[Lease] = []
        self._next = math.inf
        self._committing = False
        self._reporting = 0
        self._drained: Deferred[None] | None = None

    def record(
        self, lease: Lease, outcomes: Sequence[Outcome], destination: str, *, due: float = 0.0, attempt: bool = True
    ) -> None:
        """Settle a lease. `due` is when a delayed recipient is due again, 0 for its own back-off."""
        message, now = lease.message, self._wall()
        addressees = {addressee.n: addressee for addressee in lease.recipients}
        settlements, failed, late = [], [], []
        warn = self._patience.warn_after
        warned = message.warned or not warn or now - message.arrived < warn
        for outcome in outcomes:
            addressee = addressees[outcome.n]
            if outcome.action == "delayed" and now >= message.expires:
                outcome = outcome._replace(
                    action="failed", status="4.4.7", reply=f"given up after too long; {outcome.reply}"
                )
            self._note(message, addressee, outcome, attempt)
            if outcome.action == "failed":
                failed.append(bounce.Case(addressee.address, outcome))
            if outcome.action != "delayed":
                settlements.append(Settlement(message.id, outcome, attempt=attempt))
                continue
            if not warned:
                late.append(bounce.Case(addressee.address, outcome))
            again = due or now + self._patience.backoff.wait(addressee.tries + 1, self._chance())
            again = min(again, max(message.expires, now))
            self._next = min(self._next, again)
            settlements.append(Settlement(message.id, outcome, again, destination, attempt, warned=not warned))
        if not message.sender:
            # A report that fails is told to the administrator; one to him, and the delay of any, to nobody.
            failed, late = [case for case in failed if self._admin and case.address != self._admin], []
        if failed or late:
            self._reporting += 1
            self._make_reports(lease, settlements, failed, late)
        else:
            self._commit(lease, settlements, [])

    def drain(self) -> Deferred[None]:
        """Fires when all that was recorded is in the store."""
        drained = self._drained = Deferred()
        self._look()
        return drained

    def _note(self, message: Message, addressee: Addressee, outcome: Outcome, attempt: bool) -> None:
        self._metrics["tries"] += attempt
        if attempt or outcome.action != "delayed":
            self._metrics[outcome.action] += 1
            self._lines.write(
                outcome.action,
                encode(message.id),
                to=f"<{addressee.address}>",
                via=outcome.host,
                tls=outcome.tls,
                status=outcome.status,
                reply=outcome.reply,
            )

    # Reports.

    def _make_reports(
        self, lease: Lease, settlements: list[Settlement], failed: list[bounce.Case], late: list[bounce.Case]
    ) -> None:
        made = Deferred.fromCoroutine(self._reports_of(lease.message, failed, late))
        made.addCallbacks(
            self._reported, self._not_reported, (lease, settlements), {}, (lease, settlements, failed, late)
        )

    async def _reports_of(
        self, message: Message, failed: list[bounce.Case], late: list[bounce.Case]
    ) -> list[Submission]:
        header = await self._header(message)
        kinds = (("failed", failed), ("delayed", late))
        return [await self._made(kind, message, header, cases) for kind, cases in kinds if cases]

    def _reported(self, reports: list[Submission], lease: Lease, settlements: list[Settlement]) -> None:
        self._reporting -= 1
        self._metrics["reports"] += len(reports)
        self._commit(lease, settlements, reports)

    def _not_reported(
        self,
        failure: Failure,
        lease: Lease,
        settlements: list[Settlement],
        failed: list[bounce.Case],
        late: list[bounce.Case],
    ) -> None:
        """Without its report a failure is not recorded: nobody would hear of it. The disk may be full; later it may do."""
        if failure.check(StoreBroken):
            return
        if not failure.check(StoreFull):
            self.log.failure("a report could not be made", failure)
        self._clock.callLater(REPORT_AGAIN, self._make_reports, lease, settlements, failed, late)

    async def _made(self, kind: Any, message: Message, header: bytes, cases: list[bounce.Case]) -> Submission:
        id, to, now = self._store.newId(), message.sender or self._admin, self._wall()
        octets = bounce.report(kind, message, header, cases, id=id, hostname=self._hostname, to=to, now=now)
        content = await written(self._store.sink(), octets)
        return Submission(id, Client("daemon", self._hostname), "", Envelope("", (Recipient(to),)), b"", content)

    async def _header(self, message: Message) -> bytes:
        header = Header()
        header.feed(message.head)
        if header.complete:
            return header.octets
        reader = message.content.open()
        try:
            while not header.complete:
                piece: Any = reader.read(65536)
                if isinstance(piece, Deferred):
                    piece = await piece
                if not piece:
                    break
                header.feed(piece)
        except OSError:
            self.log.error("{id}: its header cannot be read for a report", id=encode(message.id))
        finally:
            reader.close()
        return header.octets

    # Commits.

    def _commit(self, lease: Lease, settlements: list[Settlement], reports: list[Submission]) -> None:
        self._settlements += settlements
        self._reports += reports
        self._leases.append(lease)
        self._look()

    def _look(self) -> None:
        if self._committing:
            return
        if self._settlements:
            self._committing = True
            settlements, self._settlements = self._settlements, []
            reports, self._reports = self._reports, []
            leases, self._leases = self._leases, []
            due, self._next = self._wall() if reports else self._next, math.inf
            self._settle(settlements, reports, leases, due)
        elif self._drained and not self._reporting and not self._drained.called:
            self._drained.callback(None)

    def _settle(
        self, settlements: list[Settlement], reports: list[Submission], leases: list[Lease], due: float
    ) -> None:
        expires = self._wall() + self._patience.lifetime
        done = self._store.settle(settlements, reports, expires)
        done.addCallbacks(self._committed, self._not_committed, (leases, due), {}, (settlements, reports, leases, due))

    def _committed(self, _: None, leases: list[Lease], due: float) -> None:
        self._committing = False
        for lease in leases:
            self._settled(lease)
        if due < math.inf:
            self._awaited(due)
        self._look()

    def _not_committed(
        self,
        failure: Failure,
        settlements: list[Settlement],
        reports: list[Submission],
        leases: list[Lease],
        due: float,
    ) -> None:
        if failure.check(StoreFull):
            self._clock.callLater(1.0, self._settle, settlements, reports, leases, due)
        elif not failure.check(StoreBroken):
            # The recipients stay leased until the next start, which tries them again: late, never lost.
            self.log.failure("outcomes could not be stored", failure)
            self._committed(None, leases, math.inf)
