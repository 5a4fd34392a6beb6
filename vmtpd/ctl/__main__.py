"""`python -m vmtpd.ctl`: vmtpctl in a tree that is not installed."""

import sys

from vmtpd.ctl import main

if __name__ == "__main__":
    sys.exit(main())
