"""Programs that talk to a broker: the base class of a worker, an agent that dials in (PROTOCOL section 4).

It needs nothing of the broker's own machinery, and brings none of it into the program that imports it.
"""

from broker.client.faults import Refused, TurnFailed
from broker.client.projects import Feedback, Update
from broker.client.turn import Option, StopReason, ToolStatus, Turn
from broker.client.worker import Answer, Worker

__all__ = [
    "Answer",
    "Feedback",
    "Option",
    "Refused",
    "StopReason",
    "ToolStatus",
    "Turn",
    "TurnFailed",
    "Update",
    "Worker",
]
