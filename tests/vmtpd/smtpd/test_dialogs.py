"""Every dialog, held with a session in memory: at once, and octet by octet."""

from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from tests.dialog import Dialog, dialogs, play
from tests.vmtpd.smtpd.house import TestHouse

TRUSTED = (ip_network("127.0.0.0/8"),)


class DialogTests(SynchronousTestCase):
    """One test for each file, whole and split; they are made below."""

    def hold(self, dialog: Dialog, size: int) -> None:
        """Play a dialog in pieces of a size."""
        house = TestHouse()
        session, transport = house.connect(house.door(TRUSTED))

        def send(data: bytes) -> bytes:
            if data and not transport.disconnecting:
                session.dataReceived(data)
            came = transport.value()
            transport.clear()
            return came

        play(dialog, send, size)

    def test_all_are_there(self) -> None:
        """The folder holds the conversations that the tests below were made from."""
        self.assertGreater(len(list(dialogs())), 20)


def _make(dialog: Dialog, size: int) -> None:
    def test(self: DialogTests) -> None:
        self.hold(dialog, size)

    test.__doc__ = dialog.title
    setattr(DialogTests, f"test_{dialog.name}_{'split' if size else 'whole'}", test)


for one in dialogs():
    _make(one, 0)
    _make(one, 1)
