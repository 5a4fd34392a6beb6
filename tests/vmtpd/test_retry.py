"""When to try again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.retry import Backoff


class BackoffTests(SynchronousTestCase):
    """The arithmetic of waiting."""

    def test_doubles_up_to_the_longest(self) -> None:
        """5, 10, 20 minutes and so on, at most 4 hours, however long it lasts."""
        backoff = Backoff(jitter=0)
        self.assertEqual(
            [backoff.wait(tries, 0.5) / 60 for tries in (1, 2, 3, 6, 7, 10**6)], [5, 10, 20, 160, 240, 240]
        )

    def test_jitter(self) -> None:
        """Chance moves a wait by ten percent at most, to both sides."""
        backoff = Backoff(first=100)
        self.assertEqual([round(backoff.wait(1, chance)) for chance in (0, 0.5, 1)], [90, 100, 110])

    def test_never_at_once(self) -> None:
        """Even what was never tried waits."""
        self.assertGreater(Backoff().wait(0, 0), 0)
