"""A destination in good and bad times."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.destination import START, Group
from vmtpd.mail import Destination
from vmtpd.retry import Backoff


class GroupTests(SynchronousTestCase):
    """Concurrency, going down, coming up."""

    def setUp(self) -> None:
        self.group = Group("mx.example:25", 20, Backoff(first=100, jitter=0))
        self.group.waiting.extend([None] * 50)  # type: ignore[list-item]

    def test_grows_with_success(self) -> None:
        """A destination begins with a few deliveries, and gets one more for each success up to the most."""
        self.group.active = START
        self.assertFalse(self.group.may_start(0))
        for _ in range(100):
            self.assertFalse(self.group.succeeded())
        self.assertEqual(self.group.limit, 20)

    def test_one_refusal_among_many_takes_one_place(self) -> None:
        """A host that refuses one more connection is not down: it gets as many as it bears."""
        self.group.active = 3
        self.assertFalse(self.group.failed(0, "421 too many", 0.5))
        self.assertEqual((self.group.limit, self.group.down), (3, False))

    def test_down_and_probed(self) -> None:
        """When nothing works any more the destination is down; after the wait one delivery probes it, and no more."""
        self.assertTrue(self.group.failed(0, "refused", 0.5))
        self.assertFalse(self.group.may_start(99))
        self.assertTrue(self.group.may_start(100))
        self.group.active = 1
        self.assertFalse(self.group.may_start(100))
        self.group.active = 0
        self.assertTrue(self.group.failed(100, "refused", 0.5))
        self.assertEqual(self.group.until, 300)
        self.assertEqual(self.group.remembered(), Destination("mx.example:25", "down", 300, 2, "refused"))

    def test_up_again(self) -> None:
        """A probe that succeeds is news, and everything begins anew."""
        self.group.failed(0, "refused", 0.5)
        self.assertTrue(self.group.succeeded())
        self.assertFalse(self.group.succeeded())
        self.assertEqual(self.group.remembered(), Destination("mx.example:25", "up"))

    def test_operator(self) -> None:
        """An operator who wants it tried now need not wait."""
        self.group.failed(0, "refused", 0.5)
        self.group.probe(5)
        self.assertTrue(self.group.may_start(5))
