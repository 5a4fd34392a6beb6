"""Which addresses are ours: the local domains, their mailboxes, and the administrator who takes what has none.

Policy asks before it accepts a recipient, the router asks again at each try; both get the same answer from here.

*Failures*: none; an address that is not known here is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vmtp.address import split, to_ascii
from vmtp.errors import AddressError

_ROLES = frozenset({"postmaster", "root", "abuse", "mailer-daemon"})
"""Names that somebody must read (RFC 2142, RFC 5321 section 4.5.1) and that machines write to."""


class Mailbox(NamedTuple):
    """A mailbox on this host."""

    name: str


class Redirect(NamedTuple):
    """The mail goes to another address instead."""

    address: str


class Unknown(NamedTuple):
    """The domain is ours, the name is nobody's."""


@dataclass(frozen=True, slots=True)
class Local:
    """`domains` in lower-case, "*" for all; `mailboxes` by name; `catch_all` is the mailbox of all other names, "" for none.

    `admin` gets what is written to postmaster and root, and to names of this host that have no mailbox; "" for nobody.
    `origin` completes bare names; `hostname` is a local domain wherever anybody here reads mail.
    """

    hostname: str
    origin: str
    domains: frozenset[str] = frozenset()
    mailboxes: frozenset[str] = frozenset()
    catch_all: str = ""
    admin: str = ""

    def complete(self, address: str) -> str:
        """The address with the origin where it is a bare name such as `root`. The null return path stays."""
        return address if "@" in address or not address else f"{address}@{self.origin}"

    def find(self, address: str) -> Mailbox | Redirect | Unknown | None:
        """Where mail for an address ends on this host; None where it is to leave it."""
        local_part, domain = split(address)
        name = local_part.lower()
        if not self._is_local(domain):
            return Redirect(self.admin) if self._is_ours(name, domain) else None
        for mailbox in (name, name.partition("+")[0]):
            if mailbox in self.mailboxes:
                return Mailbox(mailbox)
        if self.admin and self.admin.lower() != address.lower() and (name in _ROLES or not self.catch_all):
            return Redirect(self.admin)
        return Mailbox(self.catch_all) if self.catch_all else Unknown()

    def _is_local(self, domain: str) -> bool:
        if "*" in self.domains:
            return True
        try:
            domain = to_ascii(domain)
        except AddressError:
            return False
        reads = bool(self.admin or self.mailboxes or self.catch_all)
        return domain in self.domains or (reads and domain in (self.hostname, "localhost", "localhost.localdomain"))

    def _is_ours(self, name: str, domain: str) -> bool:
        """Whether this is a role of the origin: a machine here wrote to `root`, and its mail must not leave for a stranger's."""
        return (
            bool(self.admin) and name in _ROLES and domain == self.origin and self.admin.lower() != f"{name}@{domain}"
        )
