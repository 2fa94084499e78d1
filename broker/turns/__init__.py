"""Turns: what may happen to them, and what comes of it; pure, driven by the session actor."""

from broker.turns.commands import Accepted, AnswerApproval, AskSlot, CancelTurn, Command, CutLink, Out, StartTurn
from broker.turns.machine import TurnMachine
from broker.turns.rules import TurnRules

__all__ = [
    "Accepted",
    "AnswerApproval",
    "AskSlot",
    "CancelTurn",
    "Command",
    "CutLink",
    "Out",
    "StartTurn",
    "TurnMachine",
    "TurnRules",
]
