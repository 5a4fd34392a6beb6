"""What the daemon asks of the machine."""

from __future__ import annotations

import os
import resource
import socket

from twisted.trial.unittest import SynchronousTestCase

from vmtpd import machine


class FileSystemTests(SynchronousTestCase):
    """Where a queue would lie."""

    def test_known(self) -> None:
        """A folder of the kernel's is told by its type, also before it exists."""
        self.assertEqual(machine.file_system("/proc"), "proc")
        self.assertEqual(machine.file_system("/proc/not/yet"), "proc")

    def test_fleeting(self) -> None:
        """A disk in memory is one whose mail would not outlive the machine."""
        if not os.path.isdir("/dev/shm"):
            self.skipTest("there is no /dev/shm here")
        self.assertIn(machine.file_system("/dev/shm/vmtpd"), machine.FLEETING)


class LimitTests(SynchronousTestCase):
    """Open files and cores."""

    def setUp(self) -> None:
        before, cores = resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        self.addCleanup(os.sched_setaffinity, 0, cores)

    def test_files(self) -> None:
        """The limit is raised as far as it is wanted and allowed, and never lowered."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        self.assertEqual(machine.raise_file_limit(300), 300)
        self.assertEqual(machine.raise_file_limit(10), 300)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 300)

    def test_cores(self) -> None:
        """A thread is bound to one of its cores, and another may have them all again."""
        cores = machine.bind_to_one_core()
        self.assertEqual(len(os.sched_getaffinity(0)), 1)
        machine.spread(cores)
        self.assertEqual(os.sched_getaffinity(0), cores)


class ListenTests(SynchronousTestCase):
    """Sockets to listen on."""

    def listen(self, host: str, port: int = 0) -> list[socket.socket]:
        """Sockets that are closed at the end."""
        made = machine.listen(host, port)
        for each in made:
            self.addCleanup(each.close)
        return made

    def test_one_address(self) -> None:
        """An address is one socket, which does not block."""
        (made,) = self.listen("127.0.0.1")
        self.assertEqual(made.getsockname()[0], "127.0.0.1")
        self.assertFalse(made.getblocking())

    def test_every_address(self) -> None:
        """A star is IPv4 and, where the machine has it, IPv6, on one port number each by itself."""
        families = [made.family for made in self.listen("*")]
        self.assertEqual(families[0], socket.AF_INET)
        self.assertIn(families[1:], ([], [socket.AF_INET6]))

    def test_taken(self) -> None:
        """A port that is taken is told in one sentence, with the address."""
        (made,) = self.listen("127.0.0.1")
        port = made.getsockname()[1]
        error = self.assertRaises(machine.CannotListen, machine.listen, "127.0.0.1", port)
        self.assertEqual(str(error), f"cannot listen on 127.0.0.1:{port}: Address already in use")

    def test_not_ours(self) -> None:
        """An address of another machine is told too."""
        error = self.assertRaises(machine.CannotListen, machine.listen, "192.0.2.1", 2525)
        self.assertIn("cannot listen on 192.0.2.1:2525", str(error))
