"""Runs every test by trial and judges the run: nothing failed, nothing skipped, enough tests, none missing that must run.

    tests.py [REASON...]

A REASON is what went wrong before. .ci/floor holds the least number of tests that must pass, .ci/required the
ids of tests that must be among them. The last line is "N passed, N failed".

*Failures*: exit status 1, with a line for each reason.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

HERE = Path(__file__).resolve().parent


class Recorder(TreeReporter):
    """Trial's own report, which also notes by id what became of each test."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.passed: set[str] = set()
        self.missed: dict[str, str] = {}

    def addSuccess(self, test: Any) -> None:
        """Note a pass."""
        super().addSuccess(test)
        self.passed.add(test.id())

    def addSkip(self, test: Any, reason: Any) -> None:
        """Note a skip."""
        super().addSkip(test, reason)
        self.missed[test.id()] = "skipped"

    def addFailure(self, test: Any, fail: Any) -> None:
        """Note a failure."""
        super().addFailure(test, fail)
        self.missed[test.id()] = "failed"

    def addError(self, test: unittest.TestCase, error: Any) -> None:
        """Note an error, also of a module that cannot be loaded."""
        super().addError(test, error)
        self.missed[test.id()] = "error"

    def addExpectedFailure(self, test: Any, error: Any, todo: Any = None) -> None:
        """Note a test that is said to fail: none is."""
        super().addExpectedFailure(test, error, todo)
        self.missed[test.id()] = "todo"

    def addUnexpectedSuccess(self, test: Any, todo: Any = None) -> None:
        """Note a test that was said to fail, and did not."""
        super().addUnexpectedSuccess(test, todo)
        self.missed[test.id()] = "todo"


def lines(name: str) -> list[str]:
    """The lines of a file beside this one that say something."""
    return [line for line in (HERE / name).read_text().splitlines() if line.strip() and not line.startswith("#")]


def main(reasons: list[str]) -> int:
    """Run and judge; returns the exit status."""
    sys.path.insert(0, str(HERE.parent))
    result: Any = TrialRunner(Recorder).run(TestLoader().loadByNames(["tests"], recurse=True))
    passed = result.passed - result.missed.keys()
    floor = int(lines("floor")[0])
    reasons = reasons + [f"{what}: {id}" for id, what in result.missed.items()]
    reasons += [
        f"must pass, and did not run: {id}" for id in lines("required") if id not in passed | result.missed.keys()
    ]
    if len(passed) < floor:
        reasons.append(f"only {len(passed)} tests passed; .ci/floor wants {floor}")
    if not result.wasSuccessful() and not reasons:
        reasons.append("trial was not content")
    for reason in reasons:
        print(reason)
    print(f"{len(passed)} passed, {len(reasons)} failed")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
