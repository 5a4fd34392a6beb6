"""The client's side: an engine without I/O, its tables of states, and the procedures that every transport runs."""

from vmtp.client.engine import Answer, Ended, Engine, Event, TLSFacts
from vmtp.client.states import State
from vmtp.client.steps import Need, Posture, SendResult, Steps, Wait, connect, login, noop, quit, reset, send

__all__ = [
    "Answer",
    "Ended",
    "Engine",
    "Event",
    "Need",
    "Posture",
    "SendResult",
    "State",
    "Steps",
    "TLSFacts",
    "Wait",
    "connect",
    "login",
    "noop",
    "quit",
    "reset",
    "send",
]
