"""The envelope of a message, and the one vocabulary for what becomes of it.

An envelope is what MAIL and RCPT say (RFC 5321 section 2.3.1): sender, recipients and their parameters. What became of
a recipient is one word, RFC 3464's action field: the same in the store, the log, the reports, the commands and on the wire.

*Failures*: none here; addresses and parameters were parsed where they came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Action = Literal["delivered", "relayed", "expanded", "delayed", "failed"]
"""What became of a recipient (RFC 3464 section 2.3.3)."""

NOTHING: Mapping[str, str] = MappingProxyType({})
"""No parameters."""


class Recipient(NamedTuple):
    """One recipient: its mailbox, and the parameters of its RCPT with names in capitals ("" for one without a value)."""

    address: str
    params: Mapping[str, str] = NOTHING


class Envelope(NamedTuple):
    """Sender ("" for the null return path), recipients, and the parameters of MAIL with names in capitals."""

    sender: str
    recipients: tuple[Recipient, ...]
    params: Mapping[str, str] = NOTHING
