"""Threads that work for the store, one after the other's bidding: a Worker takes all jobs that wait at once, in their order.

The store has four: the writer, the reader, and two for contents. A job is a plain function with its values; what it returned or
raised comes back to the reactor with that of all others of its group in one call.

*Failures*: what a job raises fails its Deferred, nothing else. A thread that hangs in a dead disk does not keep the process from ending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from vmtpd.interfaces import StoreFull

GROUP = 500
"""Jobs after which a group takes no more: the last one waits for all, so a group may not grow with the crowd."""


class Reactor(Protocol):
    """What the store needs of the reactor."""

    def callFromThread(self, callable: Callable[..., object], *args: object) -> object:
        """Call in the reactor's thread; any thread may ask."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> IDelayedCall:
        """Call after so many seconds."""


class Job:
    """A function to call with values, and what came of it.

    `adds` tells that it brings mail in, which a full disk refuses first, and that its function takes the values of many
    such jobs in a list and gives a list of results, so that a group does them at once.
    """

    __slots__ = ("adds", "args", "done", "failure", "function", "result")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], adds: bool = False) -> None:
        self.function = function
        self.args = args
        self.adds = adds
        self.done: Deferred[Any] = Deferred()
        self.result: Any = None
        self.failure: Exception | None = None

    def deliver(self) -> None:
        """Fire the Deferred, in the reactor's thread."""
        if self.failure is None:
            self.done.callback(self.result)
        else:
            self.done.errback(Failure(self.failure))


Perform = Callable[[Sequence[Job]], None]
"""Does the jobs of a group: sets result or failure of each, and raises nothing."""


class IWorker(Protocol):
    """Where jobs are put."""

    def put(self, job: Job) -> None:
        """Have it done after those before it."""

    def stop(self, last: Callable[[], None]) -> Deferred[None]:
        """Finish what waits, call `last` in the thread, end. A job that is put after this fails with StoreFull."""


WorkerFactory = Callable[[str, Perform], IWorker]
"""Makes a worker of a name."""


def perform_each(jobs: Sequence[Job]) -> None:
    """Do the jobs one by one, each on its own."""
    for job in jobs:
        try:
            job.result = job.function(*job.args)
        except Exception as error:
            job.failure = error


class Worker:
    """A thread and the jobs that wait for it. `begin` is called in the thread before anything else."""

    def __init__(self, reactor: Reactor, name: str, perform: Perform, begin: Callable[[], None] | None = None) -> None:
        self._reactor = reactor
        self._perform = perform
        self._begin = begin
        self._turn: list[Job] = []
        self._waiting: SimpleQueue[list[Job] | Callable[[], None]] = SimpleQueue()
        self._ending = False
        self._stopped: Deferred[None] = Deferred()
        Thread(target=self._work, name=name, daemon=True).start()

    def put(self, job: Job) -> None:
        """Have it done after those before it."""
        if self._ending:
            job.failure = StoreFull("the store is closed")
            self._reactor.callFromThread(job.deliver)
            return
        # The jobs of one turn of the reactor go together: waking the thread for each would take turns from the reactor.
        self._turn.append(job)
        if len(self._turn) == 1:
            self._reactor.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        if self._turn:
            turn, self._turn = self._turn, []
            self._waiting.put(turn)

    def stop(self, last: Callable[[], None]) -> Deferred[None]:
        """Finish what waits, call `last` in the thread, end. A job that is put after this fails with StoreFull."""
        self._ending = True
        self._hand_over()
        self._waiting.put(last)
        return self._stopped

    def _work(self) -> None:
        if self._begin is not None:
            self._begin()
        last: Callable[[], None] | None = None
        while last is None:
            group, last = self._take()
            if group:
                self._perform(group)
                self._reactor.callFromThread(_deliver, group)
        try:
            last()
        finally:
            self._reactor.callFromThread(self._stopped.callback, None)

    def _take(self) -> tuple[list[Job], Callable[[], None] | None]:
        """All that waits, about a group of it, and what is to be called last if that is all."""
        group: list[Job] = []
        waits = True
        while len(group) < GROUP:
            try:
                next = self._waiting.get(waits)
            except Empty:
                break
            if not isinstance(next, list):
                return group, next
            group += next
            waits = False
        return group, None


def _deliver(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.deliver()
