"""Checking logins without keeping the daemon waiting."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from vmtpd.auth import checker, users
from vmtpd.auth.checker import Busy, Checker, Unavailable

Verify = Callable[[Mapping[str, users.Hash], str, str], bool]


class CheckerTests(SynchronousTestCase):
    """A login is right, wrong, or cannot be checked now."""

    def setUp(self) -> None:
        """A users file with one login, and threads that work when told."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = str(folder / "users")
        self.patch(users, "N", 1 << 10)
        users.add(self.path, "ann", "correct horse")
        self.clock = Clock()
        self.work: list[tuple[Deferred[bool], bool]] = []
        self.inline = True
        self.hashed = 0
        self.checker = Checker(self.path, self.clock, self.run_in_thread, b"key")

    def run_in_thread(
        self, verify: Verify, known: Mapping[str, users.Hash], name: str, password: str
    ) -> Deferred[bool]:
        """Stand in for a thread."""
        self.hashed += 1
        if self.inline:
            return succeed(verify(known, name, password))
        waiting: Deferred[bool] = Deferred()
        self.work.append((waiting, verify(known, name, password)))
        return waiting

    def finish(self) -> None:
        """Let one thread finish."""
        waiting, result = self.work.pop(0)
        waiting.callback(result)

    def test_right_and_wrong(self) -> None:
        """A right login gives its name in lower case; a wrong password or login gives none."""
        self.assertEqual(self.successResultOf(self.checker.check("Ann", "correct horse")), "ann")
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "wrong")))
        self.assertIsNone(self.successResultOf(self.checker.check("bob", "correct horse")))

    def test_remembered(self) -> None:
        """A device that logs in for each mail costs one hash in five minutes; a wrong password is hashed each time."""
        for _ in range(3):
            self.assertEqual(self.successResultOf(self.checker.check("ann", "correct horse")), "ann")
        self.assertEqual(self.hashed, 1)
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "wrong")))
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "wrong")))
        self.assertEqual(self.hashed, 3)
        self.clock.advance(checker.KEEP)
        self.assertEqual(self.successResultOf(self.checker.check("ann", "correct horse")), "ann")
        self.assertEqual(self.hashed, 4)

    def test_password_itself_is_not_kept(self) -> None:
        """What is remembered is not the password."""
        self.successResultOf(self.checker.check("ann", "correct horse"))
        self.assertNotIn("correct horse", repr(vars(self.checker)))

    def test_changed_file(self) -> None:
        """A new password, or the end of a login, counts at once, whatever was remembered."""
        self.successResultOf(self.checker.check("ann", "correct horse"))
        users.passwd(self.path, "ann", "battery staple")
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "correct horse")))
        self.assertEqual(self.successResultOf(self.checker.check("ann", "battery staple")), "ann")
        users.remove(self.path, "ann")
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "battery staple")))

    def test_changed_while_hashing(self) -> None:
        """A password that was proved against the old file is not remembered for the new one."""
        self.inline = False
        first = self.checker.check("ann", "correct horse")
        users.passwd(self.path, "ann", "battery staple")
        other = self.checker.check("ann", "wrong")
        self.finish()
        self.assertEqual(self.successResultOf(first), "ann")
        self.finish()
        self.assertIsNone(self.successResultOf(other))
        self.inline = True
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "correct horse")))

    def test_two_at_once(self) -> None:
        """Two hashes are computed at once; a login that was proved meanwhile needs none of its own."""
        self.inline = False
        answers = [self.checker.check("ann", "correct horse") for _ in range(10)]
        self.assertEqual(len(self.work), 2)
        self.finish()
        self.finish()
        self.assertEqual([self.successResultOf(answer) for answer in answers], ["ann"] * 10)
        self.assertEqual(self.hashed, 2)

    def test_busy(self) -> None:
        """A flood of logins is told to come again, and does not grow without bound."""
        self.inline = False
        answers = [self.checker.check("ann", "wrong") for _ in range(checker.THREADS + checker.WAITING)]
        self.failureResultOf(self.checker.check("ann", "wrong"), Busy)
        while self.work:
            self.finish()
        self.assertEqual([self.successResultOf(answer) for answer in answers], [None] * len(answers))
        self.inline = True
        self.assertIsNone(self.successResultOf(self.checker.check("ann", "wrong")))

    def test_damaged_file(self) -> None:
        """With a file that is damaged, logins go on with the one before; that is logged once."""
        self.successResultOf(self.checker.check("ann", "correct horse"))
        logged = EventLoggingObserver.createWithCleanup(cast(TestCase, self), globalLogPublisher)
        Path(self.path).write_text("nonsense\n")
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.checker.check("ann", "correct horse")), "ann")
            self.assertIsNone(self.successResultOf(self.checker.check("ann", "wrong")))
        self.assertEqual(["users:1:" in str(event["error"]) for event in logged], [True])

    def test_no_file(self) -> None:
        """Without a file no login can be checked, until there is one."""
        missing = Checker(self.path + ".new", self.clock, self.run_in_thread)
        self.failureResultOf(missing.check("ann", "correct horse"), Unavailable)
        users.add(self.path + ".new", "ann", "correct horse")
        self.assertEqual(self.successResultOf(missing.check("ann", "correct horse")), "ann")
