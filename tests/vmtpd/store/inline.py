"""The store's threads, replaced: each job is done when it is put, in the order of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from vmtpd.interfaces import StoreFull
from vmtpd.store.threads import Job, Perform


class InlineReactor(Clock):
    """A clock that calls from a thread at once."""

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None:
        """There is one thread."""
        callable(*args)


class InlineWorker:
    """Does a job when it is put, unless it is told to let them gather."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._stopped = False
        self._gathered: list[Job] | None = None

    def put(self, job: Job) -> None:
        """Do it now, or with the others later."""
        if self._stopped:
            job.failure = StoreFull("the store is closed")
            job.deliver()
        elif self._gathered is not None:
            self._gathered.append(job)
        else:
            self._do([job])

    def stop(self, last: Callable[[], None]) -> Deferred[None]:
        """Do what comes last."""
        self._stopped = True
        last()
        return succeed(None)

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Let jobs gather, and do them as one group at the end."""
        self._gathered = []
        yield
        jobs, self._gathered = self._gathered, None
        self._do(jobs)

    def _do(self, jobs: list[Job]) -> None:
        self._perform(jobs)
        for job in jobs:
            job.deliver()


class InlineWorkers:
    """Makes workers and knows them by name."""

    def __init__(self) -> None:
        self.named: dict[str, InlineWorker] = {}

    def __call__(self, name: str, perform: Perform) -> InlineWorker:
        """A worker."""
        worker = self.named[name] = InlineWorker(perform)
        return worker

    def gather(self, name: str) -> AbstractContextManager[None]:
        """Let the jobs of one worker gather."""
        return self.named[name].gather()
