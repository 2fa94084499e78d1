"""All turns of a session, found by their ids: what was sent twice is known, what is not there is said (P4)."""

from typing import Final

from broker.errors import BrokerError
from broker.turns.turn import Turn

__all__ = ["Ledger"]

_TURN: Final = "$.payload.turn_id"


class Ledger:
    """Every turn that a session ever accepted."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}
        self._by_client: dict[tuple[str | None, str], Turn] = {}

    def add(self, turn: Turn) -> None:
        """Remember a turn for the life of the session."""
        self._turns[turn.turn_id] = turn
        self._by_client[turn.user, turn.client_msg_id] = turn

    def knows(self, user: str | None, client_msg_id: str) -> bool:
        """Tell whether a turn was accepted under this id."""
        return (user, client_msg_id) in self._by_client

    def same(self, user: str | None, client_msg_id: str, digest: bytes) -> Turn | None:
        """Return the turn that was accepted under this id, None if there is none.

        Raises:
            BrokerError: `conflict`, if something else was sent under it.
        """
        known = self._by_client.get((user, client_msg_id))
        if known is not None and known.digest != digest:
            raise BrokerError("conflict", field="$.payload.client_msg_id", hint="use a new client_msg_id")
        return known

    def find(self, turn_id: str) -> Turn:
        """Return a turn.

        Raises:
            BrokerError: `not_found`.
        """
        turn = self._turns.get(turn_id)
        if turn is None:
            raise BrokerError("not_found", "This session has no such turn.", field=_TURN)
        return turn

    def waiting(self, turn_id: str, author: str | None) -> Turn:
        """Return a turn that waits, for its author alone.

        Raises:
            BrokerError: `not_found`, `forbidden`, `already_ended`, or `conflict` once an agent has it.
        """
        turn = self.find(turn_id)
        if turn.user != author:
            raise BrokerError("forbidden", "That turn is somebody else's.", field=_TURN)
        if turn.state == "ended":
            raise BrokerError("already_ended", field=_TURN)
        if turn.state != "queued":
            raise BrokerError("conflict", "The agent has that turn already.", field=_TURN, hint="cancel it")
        return turn

    def check_retry(self, retry_of: str) -> None:
        """Check that a turn can be tried again.

        Raises:
            BrokerError: `not_found`, or `conflict` while it has not ended.
        """
        field = "$.payload.retry_of"
        tried = self._turns.get(retry_of)
        if tried is None:
            raise BrokerError("not_found", "This session has no such turn.", field=field)
        if tried.state != "ended":
            raise BrokerError("conflict", "That turn has not ended.", field=field, hint="wait for it, or cancel it")
