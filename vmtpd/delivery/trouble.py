"""What a trouble is: the only place that judges one, for every agent.

A trouble has a scope. A *host* trouble says nothing of the message: the next host may take it, and all mail for this one may wait. A
*message* trouble is the same for all its recipients, but not for other mail. A *recipient* trouble is his alone.

Two rules stand above the reply codes. What is wrong between us and a next hop (greeting, EHLO, STARTTLS, AUTH, 421 anywhere, 530) delays
mail and never fails it, whatever the code: a password that expired must not bounce a queue. And a connection that
was cut behind the last octet of a content is never tried again at once: the message may have arrived (RFC 5321 section 6.1).

*Failures*: none; what is not known here is delayed with 4.3.0.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from twisted.internet import error as net

from vmtp.client.engine import Answer
from vmtp.envelope import Action
from vmtp.errors import (
    AddressError,
    ConnectionClosed,
    ExtensionUnavailable,
    LocalError,
    MalformedReply,
    RemoteError,
    TimedOut,
    TLSFailed,
    UnexpectedReply,
)
from vmtpd.interfaces import NoSuchDomain, ResolverTrouble
from vmtpd.mail import Outcome, Scope

_OF_HOST = frozenset({"greeting", "EHLO", "HELO", "STARTTLS", "AUTH", "RSET", ""})
"""Operations whose refusal says nothing of a message."""

_LOGIN_WANTED = frozenset({530, 538})
"""Refusals of MAIL and RCPT that ask for a login or for TLS: ours to put right."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Trouble(NamedTuple):
    """A judgement. `status` is an enhanced code of the action's class, `text` what the operator reads."""

    scope: Scope
    action: Action
    status: str
    text: str

    def outcome(self, n: int, host: str = "", tls: str = "") -> Outcome:
        """The outcome for a recipient."""
        return Outcome(n, self.action, self.status, self.text, host, tls, self.scope)


def of_answer(answer: Answer) -> Trouble:
    """A refusal that a peer said."""
    operation, reply = answer
    if operation in _OF_HOST or reply.code == 421 or reply.code in _LOGIN_WANTED:
        return Trouble("host", "delayed", f"4{reply.status[1:]}", str(reply))
    scope: Scope = "recipient" if operation == "RCPT" else "message"
    if too_many(answer):
        return Trouble(scope, "delayed", "4.5.3", str(reply))
    return Trouble(scope, "delayed" if reply.temporary else "failed", reply.status, str(reply))


def too_many(answer: Answer) -> bool:
    """Whether a recipient was refused only because the transaction has many already (RFC 5321 section 4.5.3.1.10)."""
    reply = answer.reply
    return answer.operation == "RCPT" and reply.code in (452, 552) and reply.enhanced in ("", "4.5.3", "5.5.3")


def of_error(error: BaseException) -> Trouble:
    """A trouble without a reply, or with one that ended the session."""
    if isinstance(error, UnexpectedReply) and not error.reply.ok:
        return of_answer(Answer(error.operation, error.reply))
    if isinstance(error, LocalError):
        return _of_local(error)
    if isinstance(error, RemoteError):
        return _of_remote(error)
    return Trouble("host", "delayed", *_network(error))


def _of_local(error: LocalError) -> Trouble:
    """What we must not send: a login in clear is a matter of the route, the rest one of the message."""
    if error.operation == "AUTH":
        return Trouble("host", "delayed", "4.7.0", str(error))
    if error.operation == "RCPT" or isinstance(error, AddressError):
        return Trouble("recipient", "failed", "5.1.3", str(error))
    return Trouble("message", "failed", "5.6.0", str(error))


def _of_remote(error: RemoteError) -> Trouble:
    where = f" at {error.operation}" if error.operation else ""
    text = f"{error}{where}" + ("; the message may have arrived" if error.ambiguous else "")
    status = "4.4.2" if isinstance(error, ConnectionClosed | TimedOut) else "4.5.0"
    if isinstance(error, ConnectionClosed) and error.operation == "connect":
        status = "4.4.1"
    elif isinstance(error, TLSFailed):
        status = "4.7.5"
    elif isinstance(error, ExtensionUnavailable):
        status = "4.7.4"
    elif isinstance(error, MalformedReply):
        status = "4.5.2"
    return Trouble("message" if error.ambiguous else "host", "delayed", status, text)


def _network(error: BaseException) -> tuple[str, str]:
    """Status and text of a connection that could not be made."""
    if isinstance(error, NoSuchDomain | ResolverTrouble | net.DNSLookupError):
        return "4.4.3", str(error) or "the host's address could not be found"
    if isinstance(error, net.TimeoutError | net.TCPTimedOutError | TimeoutError):
        return "4.4.2", "no connection in time"
    if isinstance(error, net.ConnectError):
        reason = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to the host"}
        return "4.4.1", reason.get(error.osError or 0, " ".join(str(error).split()))
    if isinstance(error, OSError):
        return "4.3.5", error.strerror or type(error).__name__
    return "4.3.0", "an error of this daemon, which its log tells"


def of_disk(error: OSError) -> Trouble:
    """Content that cannot be read, or a folder that cannot be written."""
    if error.errno in _FULL:
        return Trouble("host", "delayed", "4.3.1", "no room on the disk")
    return Trouble("message", "delayed", "4.3.0", error.strerror or type(error).__name__)
