"""A mail transaction: what MAIL opened, from its sender to the submission (RFC 5321 section 3.3).

Where it stands: the session makes one for each MAIL that the policy accepts, adds the recipients, passes the content through it, and
has it submitted. Our trace and what the message lacks are made here, of what is known of the client at that moment.

*Failures*: a disk that fails while content comes in is remembered, and is the `refusal` at its end; what fails behind it
comes out of `submit`. `excuse` makes a reply of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from vmtp.envelope import NOTHING, Envelope, Recipient
from vmtp.message import Header
from vmtpd import cleanup
from vmtpd.ids import encode
from vmtpd.interfaces import IContent, ISink, StoreBroken, StoreFull
from vmtpd.mail import Facts, Message, Submission, Verdict

if TYPE_CHECKING:
    from vmtpd.smtpd.door import House

_FULL = Verdict(452, "4.3.1", "no room on the disk, try again later")
_BROKEN = Verdict(451, "4.3.0", "the message could not be stored, try again later")
_KEPT = ("BODY",)
"""Parameters of MAIL that the next hop must know too; the others speak to us alone."""

_log = Logger()


class Transaction:
    """Sender, parameters and recipients of a message, and its content as it comes."""

    __slots__ = ("_header", "_house", "_params", "_trouble", "recipients", "sender", "sink")

    def __init__(self, house: House, sender: str, params: Mapping[str, str]) -> None:
        self._house = house
        self._params = {name: params[name] for name in _KEPT if name in params} if params else NOTHING
        self._header = Header()
        self._trouble: Verdict | None = None
        self.sender = sender
        self.recipients: list[Recipient] = []
        self.sink: ISink | None = None

    def begin(self) -> None:
        """Content comes next."""
        self.sink = self._house.store.sink()

    def take(self, data: bytes) -> Deferred[None] | None:
        """A piece of content. A Deferred, which never fails, means: no more of it until then."""
        assert self.sink is not None
        self._header.feed(data)
        if self._trouble is not None:
            return None
        written = self.sink.write(data)
        return written if written is None else written.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._trouble = excuse(failure)

    def discard(self) -> None:
        """Nothing of this is kept."""
        if self.sink is not None:
            self.sink.discard()

    @property
    def refusal(self) -> Verdict | None:
        """Why the whole content is not taken, where that is so."""
        return self._trouble or cleanup.looping(self._header)

    def submit(self, facts: Facts) -> Deferred[Message]:
        """Hand the message over. Fires when it is durable."""
        assert self.sink is not None
        content: Any = self.sink.finish()
        # What lies in a file takes its time.
        in_file = isinstance(content, Deferred)
        return content.addCallback(self._submit, facts) if in_file else self._submit(content, facts)

    def _submit(self, content: IContent, facts: Facts) -> Deferred[Message]:
        house = self._house
        id = house.store.newId()
        addresses = [recipient.address for recipient in self.recipients]
        protocol = cleanup.protocol(extended=facts.extended, tls=bool(facts.tls), login=bool(facts.login))
        trace = cleanup.Trace(facts.hello, facts.address, house.hostname, protocol, facts.tls, encode(id))
        complete = facts.role != "inbound"
        head = cleanup.head(trace, self._header, self.sender, addresses, house.wall(), complete=complete)
        envelope = Envelope(self.sender, tuple(self.recipients), self._params)
        return house.submit.submit(Submission(id, facts.client, facts.listener, envelope, head, content))


def excuse(failure: Failure) -> Verdict:
    """What a client is told of a message that was not stored."""
    if failure.check(StoreFull):
        return _FULL
    if not failure.check(StoreBroken):
        _log.failure("a message was not stored", failure)
    return _BROKEN
