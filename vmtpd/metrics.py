"""What is counted: one plain dict of numbers, since a count costs nothing then, on the hottest path too.

    metrics = new()
    metrics["accepted"] += 1

Counters go up only and begin anew with the process; gauges tell how it is now. `vmtpctl status` shows both.

*Failures*: none; a name that is not declared here raises KeyError at the first use, in the first test that comes by.
"""

from __future__ import annotations

COUNTERS = {
    "connections": "sessions that began",
    "refused_connections": "sessions that were refused at once",
    "accepted": "messages taken into the store",
    "accepted_octets": "octets of them",
    "refused_senders": "MAIL commands refused",
    "refused_recipients": "RCPT commands refused",
    "refused_messages": "messages refused after their content",
    "logins": "logins that were right",
    "failed_logins": "logins that were wrong",
    "tries": "deliveries that were tried",
    "relayed": "recipients handed to another host",
    "delivered": "recipients delivered here",
    "expanded": "recipients replaced by others",
    "delayed": "tries that ended in a delay",
    "failed": "recipients given up",
    "reports": "reports sent about failures and delays",
}
"""Counters and what they count."""

GAUGES = {
    "sessions": "sessions that are open",
    "deliveries": "deliveries under way",
}
"""Gauges and what they tell."""


def new() -> dict[str, int]:
    """All of them, at zero."""
    return dict.fromkeys([*COUNTERS, *GAUGES], 0)
