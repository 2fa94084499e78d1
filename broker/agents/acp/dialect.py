"""What differs between the versions of the Agent Client Protocol, behind one face."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs
import msgspec

from broker.agents.acp.jsonrpc import Answer, RpcError
from broker.agents.acp.wire import REQUEST_CANCELLED, refusal_of
from broker.errors import BrokerError
from broker.messages import AgentEvent, ApprovalRequested, Prompt, TurnFailed, TurnSettled

__all__ = ["Call", "Dialect", "Turn", "failed", "refused"]

Call = tuple[str, dict[str, Any]]
"""A request: its method and its params."""


@attrs.define(eq=False)
class Turn:
    """The turn that an agent has, or is to have as soon as it is ready.

    Attributes:
        prompt: what was asked.
        written: whether the agent has been given the prompt.
        cancelling: whether it was asked to stop.
    """

    prompt: Prompt
    written: bool = False
    cancelling: bool = False

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self.prompt.turn_id


class Dialect(Protocol):
    """How one version of the protocol says things, for one session.

    What is read raises one of `jsonrpc.MISREAD` if it makes no sense. The turn is over with the `TurnSettled` or
    `TurnFailed` that is yielded, always the last of its events.

    Attributes:
        taken_when_written: whether an agent counts as at work once it has been sent the prompt.
    """

    taken_when_written: bool

    def begin(self) -> None:
        """Expect the life of another turn: its prompt is about to be written."""

    def answered(self, turn: Turn, answer: Answer, logins: Sequence[str]) -> Iterator[AgentEvent]:
        """Yield what the answer to a prompt says; `logins` are the ways to log in that the agent named."""

    def told(self, raw: msgspec.Raw, turn: Turn | None, late: str | None) -> Iterator[AgentEvent]:
        """Yield what an update says.

        Args:
            raw: the `update` of a `session/update`.
            turn: the turn that the agent has now, if any.
            late: otherwise, the one that it had last: what it still says belongs to that.
        """

    def question(self, params: msgspec.Raw, turn_id: str, key: str) -> ApprovalRequested:
        """Return the question that the params of a `session/request_permission` ask."""

    def mode(self, session_id: str, mode: str) -> Call:
        """Return the request that changes the mode.

        Raises:
            BrokerError: `not_found`: the agent has no modes.
        """

    def option(self, session_id: str, option: str, value: bool | str) -> Call:
        """Return the request that sets a configuration option."""

    def learn(self, options: msgspec.Raw) -> None:
        """Take notice of the configuration options that there are."""


def refused(turn: Turn, error: RpcError, logins: Sequence[str] = ()) -> AgentEvent:
    """Return how a turn ends whose prompt was answered with an error."""
    if turn.cancelling and error.code == REQUEST_CANCELLED:
        return TurnSettled(turn.turn_id, "cancelled")
    return failed(turn, refusal_of(error, logins))


def failed(turn: Turn, error: BrokerError) -> TurnFailed:
    """Return the failure of a turn."""
    return TurnFailed(turn.turn_id, error.code, error.message, error.retryable)
