"""The server's side of SMTP and VMTP, without I/O: `Engine`, its limits, and the events it gives."""

from vmtp.server.engine import BEGIN, Engine, Limits
from vmtp.server.events import Content, Data, End, Event, Hello, Login, Mail, Rcpt, Reset, Slot, StartTLS

__all__ = [
    "BEGIN",
    "Content",
    "Data",
    "End",
    "Engine",
    "Event",
    "Hello",
    "Limits",
    "Login",
    "Mail",
    "Rcpt",
    "Reset",
    "Slot",
    "StartTLS",
]
