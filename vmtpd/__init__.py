"""vmtpd, a mail relay daemon: takes mail on the local network, keeps it safe, gets it out."""

__version__ = "0.1.0"
