"""The judge finds each kind of fault, and no others."""

from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.ledger import MARK, entry, judge

SENT = ["offered m1 aa ann@one.example bob@two.example", "acknowledged m1", "offered m2 bb ann@one.example"]


class JudgeTests(SynchronousTestCase):
    """Ledgers and what they mean."""

    def test_all_well(self) -> None:
        """What was acknowledged arrived once, whether in one transaction or in two."""
        for arrived in (["m1 aa ann@one.example bob@two.example"], ["m1 aa bob@two.example", "m1 aa ann@one.example"]):
            verdict = judge(SENT, arrived)
            self.assertTrue(verdict.clean)
            self.assertEqual(
                (verdict.offered, verdict.acknowledged, verdict.arrived, verdict.duplicates, verdict.unpromised),
                (2, 2, 2, 0, 0),
            )

    def test_lost(self) -> None:
        """A promise to one of two recipients that is not kept is a loss; what was never promised is none."""
        verdict = judge(SENT, ["m1 aa ann@one.example"])
        self.assertEqual((verdict.lost, verdict.clean), (["m1 bob@two.example"], False))

    def test_corrupt(self) -> None:
        """Another content under a known id is corrupt, and counts as that alone."""
        verdict = judge(SENT, ["m1 ff ann@one.example bob@two.example"])
        self.assertEqual(verdict.corrupt, ["m1 ann@one.example", "m1 bob@two.example"])
        self.assertEqual((verdict.lost, verdict.arrived, verdict.clean), ([], 0, False))

    def test_corrupt_though_not_acknowledged(self) -> None:
        """Half of a message whose sender was cut off may not arrive either."""
        whole = "m1 aa ann@one.example bob@two.example"
        self.assertEqual(judge(SENT, [whole, "m2 ff ann@one.example"]).corrupt, ["m2 ann@one.example"])

    def test_stray(self) -> None:
        """What nobody sent, or not to this recipient, is corrupt."""
        whole = "m1 aa ann@one.example bob@two.example"
        strays = ["m9 aa ann@one.example", "- - ann@one.example", "m2 bb eve@one.example"]
        self.assertEqual(len(judge(SENT, [whole, *strays]).corrupt), 3)

    def test_duplicates(self) -> None:
        """What came more than once is counted for each time too many, and is no fault of its own."""
        verdict = judge(
            SENT, ["m1 aa ann@one.example bob@two.example", "m1 aa ann@one.example", "m1 aa ann@one.example"]
        )
        self.assertEqual((verdict.duplicates, verdict.arrived, verdict.clean), (2, 2, True))

    def test_unpromised(self) -> None:
        """What arrived though its 250 was lost is allowed, and counted."""
        verdict = judge(SENT, ["m1 aa ann@one.example bob@two.example", "m2 bb ann@one.example"])
        self.assertEqual((verdict.unpromised, verdict.arrived, verdict.clean), (1, 3, True))

    def test_broken_ledger(self) -> None:
        """A ledger that cannot be read is no verdict."""
        for client, hop in (
            (["acknowledged m1"], []),
            (["offered m1 aa"], []),
            ([""], []),
            (SENT, ["m1 aa"]),
            (SENT, [""]),
        ):
            self.assertRaises(ValueError, judge, client, hop)


class EntryTests(SynchronousTestCase):
    """How a hop finds a message again."""

    content = MARK + b"m1\r\nSubject: x\r\n\r\nbody\r\n"
    line = f"m1 {sha256(content).hexdigest()} ann@one.example bob@two.example\n"

    def test_fields_in_front(self) -> None:
        """What was added in front does not count."""
        for front in (b"", b"Received: from a\r\n\tby b;\r\n\tnow\r\nDate: today\r\n"):
            self.assertEqual(entry(front + self.content, ["ann@one.example", "bob@two.example"]), self.line)

    def test_change(self) -> None:
        """One octet more, less or other behind that is another content."""
        for changed in (self.content + b"\r\n", self.content[:-2], self.content.replace(b"body", b"bodx")):
            self.assertNotEqual(entry(changed, ["ann@one.example", "bob@two.example"]), self.line)

    def test_no_id(self) -> None:
        """A message without an id is written down too, for nothing may arrive unseen."""
        self.assertEqual(entry(b"Subject: report\r\n\r\nbody\r\n", ["ann@one.example"]), "- - ann@one.example\n")
