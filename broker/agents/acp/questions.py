"""What an ACP agent asks of people in one turn: answered once each, or withdrawn."""

from collections.abc import Callable

import msgspec

from broker.agents.acp.dialect import Dialect
from broker.agents.acp.jsonrpc import MISREAD
from broker.agents.acp.switchboard import Switchboard
from broker.agents.acp.wire import CANCELLED, INVALID_PARAMS, REQUEST_CANCELLED, selected
from broker.messages import ApprovalRequested

__all__ = ["Questions"]


class Questions:
    """The open questions of one session's running turn, by the agent's request ids.

    Args:
        emit: takes a question for people.
    """

    def __init__(self, emit: Callable[[ApprovalRequested], None]) -> None:
        self._emit = emit
        self._open: set[str] = set()

    def ask(self, board: Switchboard, dialect: Dialect, turn_id: str, key: str, params: msgspec.Raw) -> None:
        """Take a question; one that nobody could answer is refused."""
        try:
            question = dialect.question(params, turn_id, key)
        except MISREAD:
            board.refuse(key, INVALID_PARAMS, "the question cannot be read")
            return
        self._open.add(key)
        self._emit(question)

    def answer(self, board: Switchboard, key: str, option_id: str | None) -> None:
        """Answer a question, once; None says it was cancelled."""
        if key in self._open:
            self._open.remove(key)
            board.answer(key, selected(option_id))

    def cancel(self, board: Switchboard) -> None:
        """Answer all that is open as cancelled; ACP wants that of a client that cancels."""
        while self._open:
            board.answer(self._open.pop(), CANCELLED)

    def withdraw(self, board: Switchboard, key: str) -> bool:
        """Forget a question that the agent takes back, if it is one of these; what people answer goes nowhere."""
        if key not in self._open:
            return False
        self._open.remove(key)
        board.refuse(key, REQUEST_CANCELLED, "cancelled")
        return True

    def forget(self) -> None:
        """Forget all that is open: nobody is there to be answered."""
        self._open.clear()
