"""The store in memory keeps the contract."""

from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.store_contract import StoreContract, settled
from vmtpd.interfaces import StoreFull
from vmtpd.store.memory import MemoryStore


class Memory(StoreContract, SynchronousTestCase):
    """The contract, and the trouble that a test may ask for."""

    def makeStore(self) -> MemoryStore:
        """A store in memory."""
        return MemoryStore(lambda: self.now)

    def test_trouble(self) -> None:
        """A store in trouble refuses changes and goes on answering questions."""
        id = self.add(lease=True)
        self.store.trouble = StoreFull("full")
        self.failureResultOf(self.store.add(self.submission(), True, self.now), StoreFull)
        self.failureResultOf(self.store.settle([settled(id, 1, "relayed")]), StoreFull)
        self.assertEqual(self.get(self.store.counts()).leased, 1)
