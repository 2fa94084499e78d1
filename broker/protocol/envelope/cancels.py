"""Cancels of clients of `envelope.v1.json` that wait until it is known which turn a text has become."""

from typing import Final

from broker.errors import BrokerError
from broker.protocol.envelope.answers import Asked

__all__ = ["MOST", "Cancels"]

MOST: Final = 64
"""Cancels of one connection that may wait (PROTOCOL P7)."""


class Cancels:
    """Those of one connection, by the session and the id of the text that they name."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[Asked]] = {}

    def wait(self, session_id: str, text_id: str, asked: Asked) -> None:
        """Keep one.

        Raises:
            BrokerError: `overloaded`.
        """
        if sum(map(len, self._waiting.values())) >= MOST:
            raise BrokerError("overloaded", f"{MOST} cancels of this connection wait already.", retry_after=1.0)
        self._waiting.setdefault((session_id, text_id), []).append(asked)

    def of_text(self, session_id: str, text_id: str) -> list[Asked]:
        """Return those that wait for a text, and keep them no longer."""
        return self._waiting.pop((session_id, text_id), [])

    def of_session(self, session_id: str) -> list[tuple[str, Asked]]:
        """Return those that wait in a session, with the ids of their texts, and keep them no longer."""
        keys = [key for key in self._waiting if key[0] == session_id]
        return [(key[1], asked) for key in keys for asked in self._waiting.pop(key)]
