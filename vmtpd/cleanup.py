"""What a message gets on its way in: our trace field, and the fields that it lacks (RFC 5321 section 4.4, RFC 6409 section 8).

Where it stands: between the end of the content and the store. The head made here is stored before the content, which itself is
never changed. A message that passed too many hosts is a loop and is refused.

*Failures*: `looping` gives the reply; the rest cannot fail. What a client said of itself is cut to safe characters before it stands
in a field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vmtp.message import Header, date
from vmtpd.mail import Verdict

MAX_HOPS = 100
"""Received fields of a message that is taken (RFC 5321 section 6.3 asks for at least 100)."""

LOOP = Verdict(554, "5.4.6", "too many hops: this message goes in circles")

_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]")


@dataclass(slots=True, frozen=True)
class Trace:
    """What a Received field tells: names of both ends, address of the client, protocol (RFC 3848), TLS version, queue id."""

    hello: str
    address: str
    hostname: str
    protocol: str
    tls: str
    id: str


def protocol(*, extended: bool, tls: bool, login: bool) -> str:
    """The word behind "with" (RFC 3848)."""
    return ("ESMTP" if extended else "SMTP") + ("S" if tls and extended else "") + ("A" if login and extended else "")


def looping(header: Header) -> Verdict | None:
    """The refusal of a message that passed too many hosts, or None."""
    # Counting names is the slow way and rarely needed.
    if header.octets.lower().count(b"received:") <= MAX_HOPS:
        return None
    return LOOP if header.names().count(b"received") > MAX_HOPS else None


def head(trace: Trace, header: Header, sender: str, recipients: list[str], now: float, *, complete: bool) -> bytes:
    """The octets that stand before the content. `complete` adds what the message lacks: Date, Message-ID and From."""
    stamp = date(now)
    literal = f"[IPv6:{trace.address}]" if ":" in trace.address else f"[{trace.address}]"
    hello = _UNSAFE.sub("", trace.hello)[:255] or "unknown"
    secured = f" ({trace.tls})" if trace.tls else ""
    single = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
    lines = [
        f"Received: from {hello} ({literal}){secured}\r\n"
        f"\tby {trace.hostname} with {trace.protocol} id {trace.id}{single};\r\n\t{stamp}\r\n"
    ]
    if complete:
        names = frozenset(header.names())
        if b"date" not in names:
            lines.append(f"Date: {stamp}\r\n")
        if b"message-id" not in names:
            lines.append(f"Message-ID: <{trace.id}@{trace.hostname}>\r\n")
        if b"from" not in names and sender:
            lines.append(f"From: <{sender}>\r\n")
    if header.absent:
        lines.append("\r\n")
    return "".join(lines).encode("utf-8")
