"""What is on disk after the process was killed: a child is killed at every step, and the store is opened again.

A kill leaves what the kernel has; that the disk has it too is the business of `synchronous` and fsync, whose order is tested here
by the same means: nothing is acknowledged before its commit.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.vmtpd.store.failing import Trouble
from tests.vmtpd.store.inline import InlineReactor, InlineWorkers
from tests.vmtpd.store.test_sqlite import OnDisk
from tests.vmtpd.store_contract import NOW, Scenes, settled
from vmtpd.store.sqlite import SQLiteStore

LARGE = b"x" * 70_000


class Killed(Scenes, OnDisk):
    """kill -9 between any two statements."""

    now = NOW

    def child(self, folder: Path, at: int, after: bool) -> tuple[list[str], bool]:
        """Run `work` in a child that is killed at a statement. What it acknowledged, and whether it came to its end."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                trouble = Trouble(lambda: os.kill(os.getpid(), signal.SIGKILL), at, after)
                trouble.armed = True
                self.work(folder, trouble, write)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as pipe:
            acknowledged = pipe.read().split()
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            self.assertEqual(os.WEXITSTATUS(status), 0)
        return acknowledged, os.WIFEXITED(status)

    def work(self, folder: Path, trouble: Trouble, pipe: int) -> None:
        """Add, large and small, in a group and alone, and settle; say what is durable."""

        def say(done: Deferred[Any], word: str) -> None:
            done.addCallback(lambda result: os.write(pipe, f"{word}\n".encode()))

        workers = InlineWorkers()
        store = SQLiteStore(
            folder, InlineReactor(), wall=lambda: self.now, worker=workers, connect=trouble.connect, min_free=0
        )
        store.open()
        self.store = store
        for name, body in (("small", b"hello\r\n"), ("large", LARGE)):
            submission = self.submission(f"{name}@example.org", body=body)
            say(store.add(submission, True, self.now), name)
            self.ids[name] = submission.id
        with workers.gather("store writer"):
            for name in ("one", "two"):
                submission = self.submission(f"{name}@example.org")
                say(store.add(submission, False, self.now), name)
        failed = settled(self.ids["small"], 1, "failed")
        report = self.submission("report@example.org", sender="")
        say(store.settle([failed], [report]), "report")
        say(store.settle([settled(self.ids["large"], 1, "relayed")]), "done")
        store.close()

    def test_killed_anywhere(self) -> None:
        """Wherever the daemon is killed, what it acknowledged is there whole, and a failure never without its report."""
        for after in (False, True):
            at, over = 0, False
            seen = set()
            while not over:
                at += 1
                self.ids: dict[str, int] = {}
                folder = Path(self.mktemp())
                acknowledged, over = self.child(folder, at, after)
                seen.add(len(acknowledged))
                self.check(folder, acknowledged)
            self.assertGreater(at, 40)
            self.assertEqual(seen, {0, 1, 2, 4, 5, 6})

    def check(self, folder: Path, acknowledged: list[str]) -> None:
        """The store opens, and all that was acknowledged is there."""
        self.store = self.openStore(str(folder))
        names = {}
        for lease in self.get(self.store.lease(100, self.now)):
            [recipient] = lease.recipients
            name = recipient.address.partition("@")[0]
            body = self.read(lease.message.content)
            self.assertEqual(body, {"small": b"hello\r\n", "large": LARGE}.get(name, self.body))
            names[name] = lease.message.id
        for name in acknowledged:
            if name in ("one", "two", "report"):
                self.assertIn(name, names)
        self.assertEqual("one" in names, "two" in names)
        if "small" in acknowledged:
            # Either it is still to be delivered, or it failed and its report is queued.
            self.assertNotEqual("small" in names, "report" in names)
        if "large" in acknowledged and "done" not in acknowledged and "large" not in names:
            self.assertEqual([], self.contents(folder))
        if "done" in acknowledged:
            self.assertNotIn("large", names)
        self.assertLessEqual(len(self.contents(folder)), 1 if "large" in names else 0)
        self.successResultOf(self.store.close())

    def contents(self, folder: Path) -> list[Path]:
        """The content files that the sweep at start left."""
        return [path for path in (folder / "content").rglob("*") if path.is_file()]
