"""The store on SQLite and the store in memory, told the same, say the same: each is the other's test."""

from __future__ import annotations

import sqlite3
from random import Random
from typing import Any

from tests.vmtpd.store.test_sqlite import OnDisk
from tests.vmtpd.store_contract import NOW, Scenes, settled
from vmtpd.mail import QueueFilter, Submission
from vmtpd.store import database
from vmtpd.store.memory import MemoryStore


class Agreement(Scenes, OnDisk):
    """A long life of a queue, by dice."""

    now = NOW

    def live(self, seed: int, steps: int = 150) -> None:
        """Do the same at random to both, and compare all that can be seen."""
        dice = Random(seed)
        disk, memory = self.openStore(), MemoryStore(lambda: self.now)
        made: list[int] = []
        leased: list[tuple[int, int]] = []

        def both(verb: str, *args: Any) -> Any:
            """Ask both, expect one answer."""
            one, other = (self.get(getattr(store, verb)(*args)) for store in (disk, memory))
            self.assertEqual(one, other, (seed, verb))
            return one

        def some() -> QueueFilter:
            """A filter."""
            return dice.choice(
                [
                    QueueFilter(),
                    QueueFilter(id=dice.choice(made or [1])),
                    QueueFilter(recipient=f"@d{dice.randrange(3)}.example"),
                    QueueFilter(destination=f"d{dice.randrange(3)}.example", state="queued"),
                ]
            )

        for _ in range(steps):
            self.now += dice.random() * 100
            verb = dice.choice(
                ["add"] * 3 + ["lease"] * 3 + ["settle"] * 5 + ["hold", "unhold", "retry", "delete", "wake"]
            )
            if verb == "add":
                self.store = disk
                to = [f"u{n}@d{dice.randrange(3)}.example" for n in range(dice.choice([1, 1, 2, 5]))]
                new = self.submission(*to, body=b"x" * dice.choice([1, 100, 70_000]), not_before=self.now)
                born = dice.random() < 0.5
                for store in (disk, memory):
                    self.get(store.add(new, born, NOW + 1e6))
                made.append(new.id)
                leased += [(new.id, n) for n in range(1, len(to) + 1)] if born else []
            elif verb == "lease":
                args = (dice.randrange(1, 10), self.now)
                one, other = (self.get(store.lease(*args)) for store in (disk, memory))
                seen = [
                    [(each.message.id, each.message.warned, each.recipients) for each in got] for got in (one, other)
                ]
                self.assertEqual(*seen)
                leased += [(each.message.id, to.n) for each in one for to in each.recipients]
            elif verb == "settle" and leased:
                dice.shuffle(leased)
                cut = dice.randrange(len(leased) + 1)
                now, leased = leased[:cut], leased[cut:]
                both("settle", [
                    settled(id, n, dice.choice(["delayed", "delayed", "relayed", "failed"]), dice.choice(["a", "b"]),
                            due=self.now + dice.choice([0, 50, 500]), destination=f"d{dice.randrange(3)}.example",
                            attempt=dice.random() < 0.5, warned=dice.random() < 0.1)
                    for id, n in now
                ], [Submission(*self.report(disk))] if dice.random() < 0.2 else [], NOW + 1e6)  # fmt: skip
            elif verb in ("hold", "unhold", "retry", "delete"):
                both(verb, some(), self.now)
            elif verb == "wake":
                both("wake", f"d{dice.randrange(3)}.example", self.now, 3)
            both("counts")
            both("nextDue")
            both("queue", some(), 50, 0)
            both("story", dice.choice(made or [1]))
        self.check_totals()
        open_files = {file for (file,) in self.query("SELECT file FROM message WHERE open > 0 AND file IS NOT NULL")}
        on_disk = {path.name for path in (self.folder / "content").rglob("*") if path.is_file()}
        self.assertEqual(on_disk, open_files)

    def report(self, store: Any) -> tuple[Any, ...]:
        """The fields of a report."""
        self.store = store
        new = self.submission("printer@d0.example", sender="")
        return (new.id, new.client, new.listener, new.envelope, new.head, new.content)

    def query(self, sql: str) -> list[Any]:
        """Look into the database."""
        connection = sqlite3.connect(self.folder / database.FILE)
        self.addCleanup(connection.close)
        return connection.execute(sql).fetchall()

    def check_totals(self) -> None:
        """The numbers that are kept are those that counting gives, and `open` is the number of recipients that are not done."""
        self.assertEqual(
            self.query("SELECT queued, leased, held, messages, octets, done FROM total"),
            self.query(
                "SELECT (SELECT count(*) FROM recipient WHERE state = 'queued'),"
                " (SELECT count(*) FROM recipient WHERE state = 'leased'),"
                " (SELECT count(*) FROM recipient WHERE state = 'held'),"
                " count(*), ifnull(sum(size), 0), (SELECT count(*) FROM message WHERE open = 0) FROM message WHERE open > 0"
            ),
        )
        self.assertEqual(
            self.query(
                "SELECT id FROM message m WHERE (closed IS NULL) <> (open > 0) OR (open = 0 AND body IS NOT NULL)"
                " OR open <> (SELECT count(*) FROM recipient r WHERE r.message = m.id AND r.state <> 'done')"
            ),
            [],
        )

    def test_one_answer(self) -> None:
        """Whatever is done in whatever order, both stores show the same queue, the same stories and the same numbers."""
        for seed in range(12):
            self.live(seed)
