"""When to try again: pure arithmetic (RFC 5321 section 4.5.4.1).

The wait doubles from the first retry to a longest one; a jitter keeps what failed together from coming back together.

*Failures*: none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds until the first retry, the factor, the longest wait in seconds, and the jitter as a part of one (0.1 is ten percent)."""

    first: float = 300.0
    factor: float = 2.0
    longest: float = 14400.0
    jitter: float = 0.1

    def wait(self, tries: int, chance: float) -> float:
        """Seconds to wait after so many tries (from 1). `chance` is random, 0 to 1."""
        # Beyond the 64th try the power has long met the longest wait; a float overflows at the 1024th.
        wait = min(self.longest, self.first * self.factor ** min(max(tries, 1) - 1, 64))
        return wait * (1.0 + self.jitter * (2.0 * chance - 1.0))
