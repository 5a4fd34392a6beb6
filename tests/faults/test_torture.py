"""A short torture, which vmtpd stands; and one with each fault put into it, which the judge finds."""

from twisted.trial.unittest import SynchronousTestCase

from tests.endtoend.peers import folder
from tests.faults.torture import Plan, Report, Torture


class TortureTests(SynchronousTestCase):
    """Real processes, killed by SIGKILL."""

    def run_plan(self, plan: Plan) -> Report:
        """A run in a folder of its own."""
        return Torture(folder(self), plan).run()

    def sabotaged(self, kind: str, delay: float = 300.0) -> Report:
        """A run with a fault in it. A slow hop makes a queue, so that there is something to lose."""
        report = self.run_plan(Plan(kills=2, seed=1, sessions=6, delay=delay, drain=1.0, sabotage=kind))
        self.assertGreater(report.verdict.acknowledged, 0, str(report))
        self.assertFalse(report.good, str(report))
        return report

    def test_nothing_is_lost(self) -> None:
        """vmtpd is killed five times under load, and all that it acknowledged arrives as it was sent."""
        report = self.run_plan(Plan(kills=5, seed=1))
        self.assertTrue(report.good, str(report))
        self.assertEqual(report.files, 0, "contents of messages that are done stay on the disk")

    def test_refusals_and_cuts(self) -> None:
        """A next hop that refuses, cuts connections and dies loses nothing either."""
        report = self.run_plan(Plan(kills=2, hop_kills=1, seed=2, defer=0.1, cut=0.1, delay=20.0))
        self.assertTrue(report.good, str(report))

    def test_ack_before_commit(self) -> None:
        """A daemon that says 250 before it has stored loses mail, and the judge sees it."""
        self.assertNotEqual(self.sabotaged("ack-before-commit").verdict.lost, [])

    def test_forget_queued(self) -> None:
        """A daemon that forgets what was under way loses mail, and the judge sees it."""
        self.assertNotEqual(self.sabotaged("forget-queued").verdict.lost, [])

    def test_corrupt_one(self) -> None:
        """One octet that changed on the way is seen, and not taken for a loss."""
        report = self.sabotaged("corrupt-one", delay=0.0)
        self.assertNotEqual(report.verdict.corrupt, [])
        self.assertEqual(report.verdict.lost, [])

    def test_forget_outcomes(self) -> None:
        """A daemon that does not remember what it delivered sends it again, more than a kill explains."""
        report = self.sabotaged("forget-outcomes", delay=0.0)
        self.assertGreater(report.verdict.duplicates, report.bound)
        self.assertEqual((report.verdict.lost, report.verdict.corrupt), ([], []))
