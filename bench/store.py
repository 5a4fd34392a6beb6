"""How fast the store is: add, lease and settle on a real disk, with the real threads.

    python -m bench.store [--messages 20000] [--group 100] [--size 1024] [--folder /var/tmp]

`--group` messages are under way at once, as from so many sessions. Prints messages a second and microseconds a message, of the whole
process and, for `alone`, of the functions on one connection without threads and without a disk (synchronous off).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from vmtp.envelope import Envelope, Recipient
from vmtpd.ids import Ids
from vmtpd.interfaces import IContent
from vmtpd.mail import Client, Message, Outcome, Settlement, Submission
from vmtpd.store import arrivals, database, outcome, queue
from vmtpd.store.arrivals import Arrival
from vmtpd.store.content import Inline
from vmtpd.store.sqlite import SQLiteStore

CLIENT = Client("address", "192.0.2.1")
LATER = 9e9


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description="Measure the store.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--group", type=int, default=100)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        alone(Path(folder) / "alone", options.messages, options.group, options.size)
        task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, Path(folder) / "store", options)))


def submission(id: int, content: IContent) -> Submission:
    """A message to one recipient."""
    envelope = Envelope("printer@example.org", (Recipient("ann@example.org"),))
    return Submission(id, CLIENT, "lan", envelope, b"Received: from printer\r\n" * 4, content)


def settled(id: int) -> Settlement:
    """A relayed recipient."""
    return Settlement(id, Outcome(1, "relayed", "2.0.0", "250 2.0.0 ok: queued as 12345", "mx.example.org", "TLSv1.3"))


def alone(folder: Path, messages: int, group: int, size: int) -> None:
    """The functions alone: what SQLite and its binding cost."""
    folder.mkdir()
    connection = database.open_writer(folder, database.connect)
    connection.execute("PRAGMA synchronous = OFF")
    ids, content = Ids(time.time), Inline(b"x" * size, bytes(32))
    submissions = [submission(ids.next(), content) for _ in range(messages)]

    def in_groups(name: str, each: Callable[[list[Submission]], object]) -> None:
        begin = time.process_time()
        for at in range(0, messages, group):
            connection.execute("BEGIN IMMEDIATE")
            each(submissions[at : at + group])
            connection.execute("COMMIT")
        print(f"alone {name:20} {(time.process_time() - begin) / messages * 1e6:6.1f} us/message")

    now = time.time()
    in_groups("add", lambda some: arrivals.add(connection, [Arrival(each, 1, now, LATER) for each in some]))
    queue.release_all(connection)
    in_groups("lease", lambda some: queue.lease(connection, 1, len(some), LATER, (), _no_file))
    in_groups("settle", lambda some: outcome.settle(connection, [settled(each.id) for each in some], (), now, LATER))
    connection.close()


def _no_file(file: str, size: int, digest: bytes) -> Inline:
    raise RuntimeError("small messages have no file")


async def run(reactor: Any, folder: Path, options: argparse.Namespace) -> None:
    """The whole store."""
    store = SQLiteStore(folder, reactor)
    await store.open()
    body, messages, group = b"x" * options.size, options.messages, options.group

    async def each(name: str, work: Callable[[int], Deferred[Any]]) -> None:
        """`work` again and again, `group` at once."""
        left = iter(range(messages))

        async def one() -> None:
            for number in left:
                await work(number)

        cpu, begin = _cpu(), time.perf_counter()
        await gatherResults([Deferred.fromCoroutine(one()) for _ in range(group)])
        took = time.perf_counter() - begin
        print(f"store {name:20} {messages / took:8.0f} /s   {(_cpu() - cpu) / messages * 1e6:6.1f} us CPU/message")

    held: list[int] = []

    def add(lease: bool) -> Callable[[int], Deferred[Message]]:
        def one(number: int) -> Deferred[Message]:
            sink = store.sink()
            sink.write(body)
            content = sink.finish()
            if isinstance(content, Deferred):
                return content.addCallback(lambda content: store.add(_new(content), lease, LATER))
            return store.add(_new(content), lease, LATER)

        def _new(content: IContent) -> Submission:
            new = submission(store.newId(), content)
            held.append(new.id)
            return new

        return one

    await each("add, born leased", add(True))
    await each("settle, one by one", lambda number: store.settle([settled(held[number])]))
    held.clear()
    await each("add, queued", add(False))
    begin = time.perf_counter()
    count = 0
    while leases := await store.lease(group, LATER):
        count += len(leases)
    took = time.perf_counter() - begin
    print(f"store {f'lease by {group}':20} {count / took:8.0f} /s")
    begin = time.perf_counter()
    await gatherResults(
        [store.settle([settled(id) for id in held[at : at + group]]) for at in range(0, messages, group)]
    )
    took = time.perf_counter() - begin
    print(f"store {f'settle by {group}':20} {messages / took:8.0f} /s")
    await store.close()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
