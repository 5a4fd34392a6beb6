"""How many sessions there may be: in total, and of one client.

A small count of what is open, bounded by what is open: a client that is gone leaves nothing behind.

*Failures*: `enter` gives the refusal (421, RFC 5321 section 3.8) instead of raising.
"""

from __future__ import annotations

import ipaddress

from vmtpd.mail import Verdict

_FULL = Verdict(421, "4.3.2", "too many connections, try again later", "all sessions are in use")
_CLIENT_FULL = Verdict(
    421, "4.7.0", "too many connections from you, try again later", "too many sessions of one client"
)


class Sessions:
    """Open sessions, in total and per client. IPv6 clients count by their /64, since a host has all of it."""

    def __init__(self, total: int, per_client: int) -> None:
        self.total = total
        self.per_client = per_client
        self.open = 0
        self._by_client: dict[str, int] = {}

    def enter(self, address: str) -> Verdict | None:
        """Count a session in. Returns the refusal where there is no room; then it is not counted."""
        key = _network(address)
        count = self._by_client.get(key, 0)
        if self.open >= self.total:
            return _FULL
        if count >= self.per_client:
            return _CLIENT_FULL
        self.open += 1
        self._by_client[key] = count + 1
        return None

    def leave(self, address: str) -> None:
        """Count a session out."""
        key = _network(address)
        self.open -= 1
        if (count := self._by_client[key] - 1) > 0:
            self._by_client[key] = count
        else:
            del self._by_client[key]


def _network(address: str) -> str:
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
