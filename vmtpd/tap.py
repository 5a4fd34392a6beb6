"""`twistd vmtpd`: the options on its command line, and the service made from the configuration they name.

*Failures*: a bad configuration is told mistake by mistake, and twistd ends with status 1. Nothing is opened here, since twistd
forks behind it.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from vmtpd.config import Config, load
from vmtpd.ini import ConfigError


class Options(usage.Options):
    """twistd [twistd's options] vmtpd [--config FILE]"""

    optParameters = [["config", "c", "/etc/vmtpd/vmtpd.ini", "The configuration file."]]

    config: Config

    def postOptions(self) -> None:
        """Read the configuration."""
        try:
            self.config = load(self["config"])
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def makeService(options: Any) -> IService:
    """The relay, not yet started."""
    from vmtpd.service import Relay

    relay: IService = Relay(options.config)
    return relay
