"""vmtpd with a smaller message size than a configuration may set, as tests/dialogs want it: python -m tests.endtoend.small CONFIG."""

from __future__ import annotations

import dataclasses
import sys

from twisted.internet import reactor
from twisted.python import log

from vmtpd.config import load
from vmtpd.service import Relay

SIZE = 2000


def main() -> None:
    """Run until the end of the process."""
    log.startLogging(sys.stderr, setStdout=False)
    config = load(sys.argv[1])
    relay = Relay(dataclasses.replace(config, limits=dataclasses.replace(config.limits, message_size=SIZE)))
    relay.startService()
    reactor.addSystemEventTrigger("before", "shutdown", relay.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
