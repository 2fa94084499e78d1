"""What a session's turns are bound by: its agent's profile, as far as the turn machine is concerned."""

import attrs

from broker.config.profiles import Approvals, Deadlines

__all__ = ["TurnRules"]


@attrs.frozen(kw_only=True)
class TurnRules:
    """The rules of one session's turns.

    Attributes:
        agent: the agent's name.
        queue_limit: turns that may wait.
        deadlines: how long everything may take (PROTOCOL section 3).
        approvals: who answers what the agent asks.
        limited: whether a turn has to wait for one of its agent's places before it is dispatched.
    """

    agent: str
    queue_limit: int = 16
    deadlines: Deadlines = attrs.Factory(Deadlines)
    approvals: Approvals = "ask"
    limited: bool = False
