"""The plugin by which twistd knows the relay."""

import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent


class PluginTests(SynchronousTestCase):
    """`twistd vmtpd`."""

    def test_twistd_offers_the_relay(self) -> None:
        """twistd lists vmtpd among what it can run."""
        self.assertIn("vmtpd", [maker.tapname for maker in getPlugins(IServiceMaker)])

    def test_listing_imports_nothing_of_ours(self) -> None:
        """Whoever runs another plugin of Twisted does not load the relay."""
        code = (
            "import sys\n"
            "from twisted.application.service import IServiceMaker\n"
            "from twisted.plugin import getPlugins\n"
            "names = [maker.tapname for maker in getPlugins(IServiceMaker)]\n"
            "print('vmtpd' in names, [m for m in sys.modules if m.partition('.')[0] in ('vmtp', 'vmtpd')])\n"
        )
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.stdout.strip(), "True []", result.stderr)
