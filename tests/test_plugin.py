"""The plugin by which twistd knows the relay, and what is packed with it."""

import configparser
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


class PackingTests(SynchronousTestCase):
    """What a wheel holds."""

    def setUp(self) -> None:
        """Read what is declared."""
        self.declared = configparser.ConfigParser()
        self.declared.read(ROOT / "setup.cfg")

    def test_every_package(self) -> None:
        """Every package of ours is packed, and the plugin; tests and measurements are not."""
        packages = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("vmtp*/**/__init__.py")}
        self.assertEqual(set(self.declared["options"]["packages"].split()), packages | {"twisted.plugins"})

    def test_no_package_of_twisted(self) -> None:
        """The folder of the plugin is no package, as it would hide Twisted itself."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_data(self) -> None:
        """The tables of the store, and the marks of typed packages, are packed."""
        for package, patterns in self.declared["options.package_data"].items():
            for pattern in patterns.replace(",", " ").split():
                self.assertTrue(list((ROOT / package.replace(".", "/")).glob(pattern)), f"{package}: {pattern}")
