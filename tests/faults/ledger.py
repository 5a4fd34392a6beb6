"""The judge: compares what clients were promised with what arrived at the next hop. Knows nothing of the daemon.

Two files, in which every line was durable before the SMTP reply that it stands for was sent or acted on:

    client:  offered ID DIGEST RECIPIENT...      before the content is sent
             acknowledged ID                     after its 250
    hop:     ID DIGEST RECIPIENT...              before its 250; for one transaction, "-" where no id was found

DIGEST is SHA-256 in hexadecimal, of the content as the client made it.

*Failures*: ValueError for a line of another form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

MARK = b"X-Ledger-Id: "
"""The first field that a client sends; what stands before it was added on the way."""


@dataclass(slots=True)
class Verdict:
    """Pairs of message and recipient, as "ID RECIPIENT"; `corrupt` also has what nobody sent, or not to this recipient.

    Each fault counts once: what arrived corrupt alone is not lost too.
    """

    offered: int = 0
    acknowledged: int = 0
    arrived: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    duplicates: int = 0
    unpromised: int = 0
    """Arrived, though no 250 reached the client: allowed, as the daemon may have been killed in between."""

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing changed."""
        return not self.lost and not self.corrupt


def judge(client: Iterable[str], hop: Iterable[str]) -> Verdict:
    """Compare the lines of both ledgers."""
    digests: dict[str, str] = {}
    recipients: dict[str, list[str]] = {}
    promised: set[str] = set()
    for line in client:
        match line.split():
            case ["offered", id, digest, *to] if to:
                digests[id] = digest
                recipients[id] = to
            case ["acknowledged", id] if id in digests:
                promised.add(id)
            case _:
                raise ValueError(f"not a line of a client: {line!r}")
    verdict = Verdict(offered=len(digests))
    arrived: Counter[str] = Counter()
    for line in hop:
        match line.split():
            case [id, digest, *to] if to:
                for recipient in to:
                    pair = f"{id} {recipient}"
                    if digests.get(id) == digest and recipient in recipients[id]:
                        arrived[pair] += 1
                    else:
                        verdict.corrupt.append(pair)
            case _:
                raise ValueError(f"not a line of a hop: {line!r}")
    wanted = {f"{id} {recipient}" for id in promised for recipient in recipients[id]}
    verdict.acknowledged = len(wanted)
    verdict.arrived = len(arrived)
    verdict.lost = sorted(wanted - arrived.keys() - set(verdict.corrupt))
    verdict.duplicates = arrived.total() - len(arrived)
    verdict.unpromised = len(arrived.keys() - wanted)
    return verdict


def entry(message: bytes, recipients: Iterable[str]) -> str:
    """The line of a hop for a message that it received."""
    id, digest = "-", "-"
    begin = 0 if message.startswith(MARK) else message.find(b"\r\n" + MARK) + 2
    if message.startswith(MARK, begin):
        content = message[begin:]
        id = content[len(MARK) :].split(b"\r\n", 1)[0].decode("ascii", "replace").replace(" ", "?") or "-"
        digest = sha256(content).hexdigest()
    return " ".join((id, digest, *recipients)) + "\n"
