"""vmtpctl as a process of its own, against the control service on a real socket."""

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.vmtpd.stubs import ID, Rooms, administration
from vmtpd.gateway.control import ControlSite
from vmtpd.gateway.unix import SocketInUse, UnixSocket

ROOT = str(Path(__file__).resolve().parent.parent.parent)


class ControlTests(TestCase):
    """The way from the command line to the verbs."""

    timeout = 60

    def setUp(self) -> None:
        """The service on a socket."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "control")
        self.rooms = Rooms()
        admin, _ = administration(self.rooms)
        self.site = ControlSite(admin)
        self.service = UnixSocket(reactor, self.path, self.site)  # type: ignore[arg-type]
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def vmtpctl(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output and errors."""
        command = ["-m", "vmtpd.ctl", "--socket", self.path, *arguments]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        out, err, status = await getProcessOutputAndValue(sys.executable, command, environment)
        return status, out.decode(), err.decode()

    async def test_status_through_the_socket(self) -> None:
        """The status of a running daemon is a command away."""
        status, out, err = await self.vmtpctl("status")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("on relay.example.org", out)
        self.assertIn("connection refused", out)

    async def test_change_through_the_socket(self) -> None:
        """A change reaches the store."""
        self.assertEqual((await self.vmtpctl("retry", ID))[:2], (0, "1 recipient due now\n"))
        self.assertEqual([asked[0] for asked in self.rooms.asked], ["retry", "kick"])

    def test_the_socket_is_not_for_others(self) -> None:
        """Owner and group may steer the daemon, nobody else."""
        facts = os.stat(self.path)
        self.assertEqual((stat.S_ISSOCK(facts.st_mode), stat.S_IMODE(facts.st_mode)), (True, 0o660))

    async def test_second_daemon(self) -> None:
        """A second daemon does not take the socket; once the first one stopped, the socket is gone."""
        second = UnixSocket(reactor, self.path, self.site)  # type: ignore[arg-type]
        self.assertRaises(SocketInUse, second.startService)
        await self.service.stopService()
        self.assertFalse(os.path.exists(self.path))
