"""Judges a verbose run of trial: nothing failed, nothing skipped, enough tests, and none missing that must run.

    verdict.py REPORT STATUS

REPORT is trial's output with --reporter=verbose, STATUS its exit status. .ci/floor holds the least number of tests,
.ci/required the tests that must be among them. Prints the report's end and, last, "N passed, N failed".

*Failures*: exit status 1, with a line for each reason.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_RESULT = re.compile(
    r"^(tests[\w.]*\.test_\w+) \.\.\. .*?\[(OK|FAIL|ERROR|SKIPPED|TODO|SUCCESS!\?!)\]", re.DOTALL | re.MULTILINE
)


def lines(path: Path) -> list[str]:
    """The lines of a file that say something."""
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def main(report: Path, status: int, here: Path) -> int:
    """Judge; returns the exit status."""
    text = report.read_text(errors="replace")
    results = dict(_RESULT.findall(text))
    passed = [name for name, result in results.items() if result == "OK"]
    bad = {name: result for name, result in results.items() if result != "OK"}
    floor = int(lines(here / "floor")[0])
    reasons = [f"{result}: {name}" for name, result in bad.items()]
    reasons += [f"did not pass or did not run: {name}" for name in lines(here / "required") if name not in passed]
    if status:
        reasons.append(f"trial ended with status {status}")
    if len(passed) < floor:
        reasons.append(f"only {len(passed)} tests passed; .ci/floor wants {floor}")
    if reasons:
        print(text[-20000:])
    for reason in reasons:
        print(reason)
    failed = len(bad) or len(reasons)
    print(f"{len(passed)} passed, {failed} failed")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), Path(__file__).parent))
