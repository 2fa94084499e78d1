"""Asking plugins who is to have a turn that no agent has taken up yet."""

from collections.abc import Collection

from broker.extensions.dispatch import Hooks
from broker.extensions.fence import discard
from broker.hooks import Attempt, Degraded, HandTo

__all__ = ["decide"]


def decide(hooks: Hooks, agents: Collection[str], attempt: Attempt) -> HandTo | Degraded | None:
    """Return what the first plugin says that says anything; None if the turn is to go its usual way.

    Nobody can be refused here, since the turn was accepted and has to end: whatever a plugin raises, a `BrokerError`
    too, and any answer that makes no sense, is logged and counted, and the next plugin is asked.

    Args:
        hooks: the plugins'.
        agents: the names of the agent profiles there are.
        attempt: what they are asked about.
    """
    for bound in hooks.dispatch:
        try:
            answer = bound.call(attempt)
            if answer is not None:
                return _checked(answer, agents, attempt)
        except BaseException as e:  # noqa: BLE001 - plain code cannot be cancelled: whatever it raised is its own
            hooks.broke(bound.plugin, bound.hook, e)
    return None


def _checked(answer: object, agents: Collection[str], attempt: Attempt) -> HandTo | Degraded:
    if not isinstance(answer, HandTo | Degraded):
        discard(answer)
        raise TypeError(f"on_dispatch answers with HandTo, Degraded or None; it returned {type(answer).__name__}")
    if isinstance(answer, HandTo) and answer.agent not in agents:
        raise ValueError(f"there is no agent {answer.agent!r} to hand a turn to; there are: {', '.join(agents)}")
    if isinstance(answer, HandTo) and attempt.last:
        raise ValueError("a turn that was refused so often is not handed on any more; only Degraded is followed")
    return answer
