"""Reports about messages that could not be delivered, or not yet (RFC 3461, RFC 3464): text for people, fields for machines.

Where it stands: qmgr asks for one when recipients are given up or late, and stores it in the commit that records the failure. A
report has the null return path, so that nobody ever reports about a report.

*Failures*: none; a report is made from what is known. Of the message it holds the header alone, cut to `MAX_HEADER` octets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from vmtp.address import printable
from vmtp.message import date
from vmtpd.ids import encode
from vmtpd.mail import Message, Outcome

Kind = Literal["failed", "delayed"]

MAX_HEADER = 32768
MAX_RECIPIENTS = 100
"""Recipients that a report tells of one by one."""

_SUBJECT = {"failed": "Your mail was not delivered", "delayed": "Your mail is delayed"}
_LEAD = {
    "failed": "could not be delivered to the recipients below. It will not be tried again.",
    "delayed": "could not be delivered yet to the recipients below. It will be tried again; you need not send it again.",
}


class Case(NamedTuple):
    """One recipient of a report: the address that was written to, and what became of it."""

    address: str
    outcome: Outcome


def report(
    kind: Kind,
    message: Message,
    header: bytes,
    cases: Sequence[Case],
    *,
    id: int,
    hostname: str,
    to: str,
    now: float,
) -> bytes:
    """The octets of a report to `to` about a message with this header."""
    boundary = f"=_{encode(id)}"
    utf8 = not all(case.address.isascii() for case in cases) or not header.isascii()
    lines = [
        f"Date: {date(now)}",
        f"From: Mail delivery <MAILER-DAEMON@{hostname}>",
        f"To: <{to}>",
        f"Subject: {_SUBJECT[kind]}",
        f"Message-ID: <{encode(id)}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        f"This is the mail system of {hostname}.",
        "",
        f"Your message of {date(message.arrived)}",
        _LEAD[kind],
        "",
        *_explained(kind, message, cases),
        "",
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {hostname}",
        f"X-Queue-ID: {encode(message.id)}",
        f"Arrival-Date: {date(message.arrived)}",
        *_fields(kind, message, cases, now),
        "",
        f"--{boundary}",
        "Content-Type: text/rfc822-headers",
        *(["Content-Transfer-Encoding: 8bit"] if utf8 else []),
        "",
        "",
    ]
    start = "\r\n".join(lines).encode("utf-8")
    return start + _cut(header) + f"\r\n--{boundary}--\r\n".encode()


def _explained(kind: Kind, message: Message, cases: Sequence[Case]) -> list[str]:
    lines = []
    for case in cases[:MAX_RECIPIENTS]:
        who = f"{case.outcome.host} said" if case.outcome.host else "reason"
        lines += [f"<{case.address}>", f"    {who}: {_line(case.outcome.reply)}"]
    if len(cases) > MAX_RECIPIENTS:
        lines.append(f"and {len(cases) - MAX_RECIPIENTS} more")
    if kind == "delayed":
        lines += ["", f"It will be given up on {date(message.expires)}."]
    return lines


def _fields(kind: Kind, message: Message, cases: Sequence[Case], now: float) -> list[str]:
    """The fields for each recipient (RFC 3464 section 2.3)."""
    lines = []
    for case in cases[:MAX_RECIPIENTS]:
        outcome = case.outcome
        lines += [
            "",
            f"Final-Recipient: rfc822; {case.address}",
            f"Action: {kind}",
            f"Status: {outcome.status}",
        ]
        if outcome.host:
            # "name[address]:port" is more than the name that the field takes.
            lines.append(f"Remote-MTA: dns; {outcome.host.partition('[')[0]}")
            lines.append(f"Diagnostic-Code: smtp; {_line(outcome.reply)}")
        else:
            lines.append(f"Diagnostic-Code: x-vmtpd; {_line(outcome.reply)}")
        lines.append(f"Last-Attempt-Date: {date(now)}")
        if kind == "delayed":
            lines.append(f"Will-Retry-Until: {date(message.expires)}")
    return lines


def _line(text: str) -> str:
    """A reply on one line that no mail system finds too long (RFC 5322 section 2.1.1)."""
    return printable(" ".join(text.split()))[:400]


def _cut(header: bytes) -> bytes:
    """The header, cut behind a whole line."""
    if len(header) <= MAX_HEADER:
        return header
    return header[: header.rfind(b"\r\n", 0, MAX_HEADER) + 2]
