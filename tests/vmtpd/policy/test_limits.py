"""How many sessions there may be."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vmtpd.policy.limits import Sessions


class SessionsTests(SynchronousTestCase):
    """Counting in and out."""

    def test_per_client(self) -> None:
        """One client does not take the room of the others, and an IPv6 network of one house is one client."""
        sessions = Sessions(10, 2)
        entered = [sessions.enter(f"2001:db8::{n}") for n in range(3)]
        self.assertEqual([verdict is None for verdict in entered], [True, True, False])
        self.assertIsNone(sessions.enter("2001:db8:0:1::1"))
        self.assertIsNone(sessions.enter("192.0.2.1"))

    def test_total(self) -> None:
        """Beyond the total nobody comes in, until somebody leaves."""
        sessions = Sessions(2, 2)
        sessions.enter("192.0.2.1")
        sessions.enter("192.0.2.2")
        refusal = sessions.enter("192.0.2.3")
        assert refusal is not None
        self.assertEqual((refusal.code, refusal.enhanced), (421, "4.3.2"))
        sessions.leave("192.0.2.1")
        self.assertIsNone(sessions.enter("192.0.2.3"))

    def test_nothing_stays_behind(self) -> None:
        """Clients that are gone take no memory."""
        sessions = Sessions(10, 2)
        for n in range(100):
            sessions.enter(f"192.0.2.{n}")
            sessions.leave(f"192.0.2.{n}")
        self.assertEqual((sessions.open, sessions._by_client), (0, {}))
