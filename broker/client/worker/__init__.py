"""The base class of workers: agents that dial in at the broker and share its load (PROTOCOL section 4)."""

from broker.client.worker.base import Answer, Worker
from broker.client.worker.faults import TurnFailed
from broker.client.worker.projects import Feedback, Update
from broker.client.worker.turn import Option, StopReason, ToolStatus, Turn

__all__ = ["Answer", "Feedback", "Option", "StopReason", "ToolStatus", "Turn", "TurnFailed", "Update", "Worker"]
