"""A process that stores mail until it is killed, and prints the ids of what is durable: python -m tests.endtoend.storing FOLDER."""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, gatherResults

from tests.endtoend.test_store_threads import LATER, submission
from vmtpd import ids
from vmtpd.store.sqlite import SQLiteStore


async def main() -> None:
    """Ten clients, each with one message after the other, every tenth a large one."""
    store = SQLiteStore(sys.argv[1], reactor, min_free=0)  # type: ignore[arg-type]
    await store.open()

    async def client() -> None:
        for number in range(100_000):
            new = await submission(store, b"0123456789abcdef\r\n" * (5000 if number % 10 == 9 else 10))
            await store.add(new, number % 2 == 0, LATER)
            os.write(1, f"{ids.encode(new.id)}\n".encode())

    await gatherResults([Deferred.fromCoroutine(client()) for _ in range(10)])


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main()))
