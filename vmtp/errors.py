"""What can go wrong in a session, told from two sides.

Every exception of the package descends from `Error`. `LocalError` means that the caller asked for something that must not be
sent, and not an octet of it was; `RemoteError` means that the peer, or the network before it, did something unexpected.
An error says in which operation it happened, whether trying again later makes sense (`retryable`), and whether
the message may have arrived all the same (`ambiguous`: its last octet was sent and no reply came back, RFC 5321 section 6.1).

*Failures*: none; texts hold neither bodies nor credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmtp.replies import Reply


class Error(Exception):
    """The parent of all. `operation` names the command at which it happened, "" outside of one."""

    retryable = False
    ambiguous = False

    def __init__(
        self, text: str, operation: str = "", *, retryable: bool | None = None, ambiguous: bool = False
    ) -> None:
        super().__init__(text)
        self.operation = operation
        self.ambiguous = ambiguous
        if retryable is not None:
            self.retryable = retryable


class LocalError(Error):
    """We were asked for something that cannot be done; nothing of it was sent."""


class InvalidInput(LocalError):
    """A value that may not go on the wire: a line end in an address, an empty login, a body out of turn."""


class CommandError(LocalError):
    """A command line that a server refuses: code, enhanced code and text make the reply."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text


class AddressError(LocalError):
    """Not an address by RFC 5321 section 4.1.2; the text says which part and why."""


class RemoteError(Error):
    """The peer did what the protocol does not allow, or went away."""

    retryable = True


class MalformedReply(RemoteError):
    """A reply that is none: no code, codes that differ between its lines, too long, too many lines."""


class UnexpectedReply(RemoteError):
    """A reply of another class than the operation needs; `reply` is what the peer said. 4yz is retryable, 5yz is not."""

    def __init__(self, reply: Reply, operation: str) -> None:
        super().__init__(f"{operation} was answered {reply}", operation, retryable=reply.code < 500)
        self.reply = reply


class ConnectionClosed(RemoteError):
    """The connection ended before the reply."""


class TimedOut(RemoteError):
    """The peer did not answer, or did not read, for as long as RFC 5321 section 4.5.3.2 asks us to wait."""


class TLSFailed(RemoteError):
    """No TLS as required: the handshake or the certificate failed, or the peer sent data between its 220 and the handshake."""


class ExtensionUnavailable(RemoteError):
    """The peer does not offer what this session must have; `name` is the extension."""

    def __init__(self, name: str, operation: str = "") -> None:
        super().__init__(f"the server does not offer {name}", operation)
        self.name = name


class AuthenticationFailed(UnexpectedReply):
    """The peer refused the login (RFC 4954 section 6)."""


__all__ = [
    "AddressError",
    "AuthenticationFailed",
    "CommandError",
    "ConnectionClosed",
    "Error",
    "ExtensionUnavailable",
    "InvalidInput",
    "LocalError",
    "MalformedReply",
    "RemoteError",
    "TLSFailed",
    "TimedOut",
    "UnexpectedReply",
]
