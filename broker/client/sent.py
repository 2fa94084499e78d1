"""A turn as the one who sent it sees it: what comes of it, and how it ends (PROTOCOL section 3)."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from broker.client.errors import BrokerError
from broker.client.reader import Reader
from broker.client.values import Ended, Record

if TYPE_CHECKING:
    from broker.client.sessions import Session

__all__ = ["NotCompleted", "SentTurn"]


class NotCompleted(BrokerError):  # noqa: N818 - it is named after what became of the turn
    """A turn whose text was wanted has ended otherwise than by its agent's own word.

    Attributes:
        ended: how.
        text: what was said until then.
    """

    def __init__(self, ended: Ended, text: str) -> None:
        error = ended.data.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        retryable = bool(error.get("retryable")) if isinstance(error, dict) else False
        message = ended.reason or f"The turn was {ended.outcome}."
        super().__init__(code if isinstance(code, str) else ended.outcome, message, retryable=retryable)
        self.ended = ended
        self.text = text


class SentTurn:
    """A turn that the broker has accepted: it ends, whoever listens, and exactly once (PROTOCOL P5, P6).

    ::

        turn = await session.send("Hello!")
        async for record in turn:
            print(record.text, end="", flush=True)
        ended = await turn

    Iterate to see its records as they come, until its end; to stop iterating leaves it running. Await it to know how
    it ended. Either can be done again, later, and at the same time. Both go on across reconnects and restarts of the
    broker.

    Attributes:
        id: its id.
        client_msg_id: the sender's id of it.
        seq: the number of its message in the session's log.
        status: how far it was when it was accepted, such as `queued` or `dispatching`.
        duplicate: whether it was accepted before, under the same `client_msg_id`.
        durable: whether it survives a crash of the broker; False where that was so configured.
    """

    def __init__(self, session: "Session", client_msg_id: str, answer: dict[str, Any]) -> None:
        self.id: str = answer["turn_id"]
        self.client_msg_id = client_msg_id
        self.seq: int = answer["seq"]
        self.status: str = answer["status"]
        self.duplicate: bool = answer["duplicate"]
        self.durable: bool = answer["durable"]
        self._session = session
        self._ended: Ended | None = None
        # Made now, so that what comes before somebody iterates need not be asked for again.
        self._reader: Reader[Record] | None = self._read()

    def __repr__(self) -> str:
        return f"<SentTurn {self.id} of session {self._session.id}>"

    @property
    def ended(self) -> Ended | None:
        """How it ended, as far as that was seen here."""
        return self._ended

    def __aiter__(self) -> Reader[Record]:
        reader, self._reader = self._reader or self._read(), None
        return reader

    def __await__(self) -> Generator[Any, None, Ended]:
        return self._wait().__await__()

    async def text(self) -> str:
        """Wait until it has ended, and return what the agent said.

        Raises:
            NotCompleted: it ended otherwise than by the agent's own word; it has what was said until then.
            BrokerError, Refused: as iterating.
        """
        said: dict[str, str] = {}
        async for record in self:
            _hear(said, record)
        text, ended = "\n\n".join(said.values()), await self
        if not ended.completed:
            raise NotCompleted(ended, text)
        return text

    async def cancel(self) -> dict[str, Any]:
        """Have it stopped; return `{"status", "outcome"?}`. It may be asked again."""
        return await self._session.cancel(self.id)

    async def _wait(self) -> Ended:
        if self._ended is None:
            async for _ in self:
                pass
        if self._ended is None:
            raise RuntimeError("a turn was iterated over to its end, and has none")
        return self._ended

    def _read(self) -> Reader[Record]:
        return Reader(self._session, self.seq - 1, wants=self._is_ours, last=self._is_last, sure=True)

    def _is_ours(self, record: Record) -> bool:
        return record.turn_id == self.id

    def _is_last(self, record: Record) -> bool:
        if record.event != "turn.ended":
            return False
        self._ended = Ended(record.data["outcome"], record.data)
        return True


def _hear(said: dict[str, str], record: Record) -> None:
    """Keep what a record makes of the agent's messages."""
    data = record.data
    match record.event:
        case "message.delta":
            said[data["message_id"]] = said.get(data["message_id"], "") + data["text"]
        case "message.replaced" if not data.get("thought"):
            said[data["message_id"]] = data["content"]
        case "message.completed":
            said[data["message_id"]] = data["content"]
