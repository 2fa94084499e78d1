"""A session as a client has it: its log, its turns, its questions (PROTOCOL section 2a)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from broker.client.caller import Caller
from broker.client.errors import Closed, error_of
from broker.client.followed import Followed
from broker.client.reader import Reader
from broker.client.sent import SentTurn
from broker.client.values import Attached, Page, Record, record_of
from broker.client.wire import Message
from broker.ids import new_id

__all__ = ["Content", "IfBusy", "Session"]

Content = str | Sequence[Mapping[str, Any]]
"""What a turn says: text, or content blocks."""
IfBusy = Literal["queue", "reject", "interrupt"]
"""What to do while another turn runs: wait behind it, refuse, or cancel it."""


class Session(Followed[Record]):
    """One session.

    It is followed from the first time that somebody wants its records, across reconnects, for as long as somebody
    has this object or something made of it, such as a turn.

    Attributes:
        id: its id.
        attached: how it stood when it was last attached to; None if it never was.
        made: what the broker answered when it was made here; None if it was not.
    """

    def __init__(self, caller: Caller, session_id: str) -> None:
        super().__init__(caller, f"session {session_id}")
        self.id = session_id
        self.attached: Attached | None = None
        self.made: dict[str, Any] | None = None
        self._after = 0
        self._epoch: str | None = None
        self._deleting = False

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # -- its log ----------------------------------------------------------------------------------------

    async def attach(self, *, after_seq: int = 0, epoch: str | None = None) -> Attached:
        """Follow the session, and return how it stands.

        Args:
            after_seq: everything up to this number is known; what `records` gives begins behind it.
            epoch: the log that this number is of; the answer's `recovered` says whether it goes on.

        Raises:
            BrokerError: it cannot be, says the broker: `NotFound`, `Forbidden`; or not by now: `TimedOut`.
            Refused: there is no connection any more.
        """
        self._after, self._epoch = after_seq, epoch
        await self.enter(afresh=True, within=self._caller.timeout)
        if self.attached is None:
            raise Closed
        goes_on = epoch in {None, self.attached.epoch} and self.attached.floor - 1 <= after_seq <= self.attached.head
        return msgspec.structs.replace(self.attached, recovered=goes_on or after_seq < 0)

    def records(self, *, after_seq: int | None = None, epoch: str | None = None) -> Reader[Record]:
        """Iterate over the log: what is in it already, then what comes, for as long as you like.

        It goes on across reconnects, without a gap and without a double. Whoever reads slowly is caught up from the
        log. Where that cannot continue, `LogReset` is raised once; iterate over the same iterator again to get all
        there is.

        Args:
            after_seq: begin behind this number: 0 for all there is, -1 for what is to come; left out, what `attach`
                was told.
            epoch: the log that this number is of; None for whichever there is.

        Raises (while iterating):
            LogReset: the log does not continue what you have.
            BrokerError: the session is gone, or you may not see it any more.
            Refused: there is no connection any more.
        """
        if after_seq is None:
            after_seq, epoch = self._after, self._epoch
        return Reader(self, after_seq, epoch=epoch)

    async def detach(self) -> None:
        """Follow it no more: iterators over its records end."""
        self.end(Closed(f"{self.name} was let go of at this end."))
        await self._do("session.detach")

    async def history(self, *, before_seq: int | None = None, limit: int = 100) -> Page[Record]:
        """Return a page of the log, from its end or from below `before_seq`, oldest first."""
        answer = await self._do("session.history", before_seq=before_seq, limit=limit)
        return Page(map(_record, answer["records"]), answer.get("before_seq"))

    async def messages(self, *, before_seq: int | None = None, limit: int = 100) -> Page[dict[str, Any]]:
        """Return a page of what was said: `{message_id, role, content, at, turn_id, metadata}` each, oldest first."""
        answer = await self._do("session.history", before_seq=before_seq, limit=limit, kind="messages")
        return Page(answer["messages"], answer.get("before_seq"))

    # -- its turns --------------------------------------------------------------------------------------

    async def send(
        self,
        content: Content,
        *,
        client_msg_id: str | None = None,
        if_busy: IfBusy | None = None,
        retry_of: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as `Connection.request`
    ) -> SentTurn:
        """Start a turn, and return it once the broker has accepted it.

        If the connection breaks before the answer, the same is sent again under the same id, which starts no second
        turn (PROTOCOL P4).

        Args:
            content: text, or content blocks.
            client_msg_id: your id of it, new for each thing that is said; left out, one is made.
            if_busy: what to do while another turn runs; left out, it waits behind that.
            retry_of: the turn that ended and is tried again.
            metadata: kept with the message, for all who see it.
            timeout: seconds until there has to be an answer.

        Raises:
            BrokerError: the broker does not accept it.
            Disconnected, TimedOut: no answer came in time. Whether it was accepted is not known; send it again with
                the same `client_msg_id` to find out.
            Refused: there is no connection any more.
        """
        said: dict[str, Any] = {"client_msg_id": client_msg_id or new_id(), "content": content}
        more = {"if_busy": if_busy, "retry_of": retry_of, "metadata": metadata}
        turns: list[SentTurn] = []

        def landed(answer: dict[str, Any]) -> None:
            turns.append(SentTurn(self, said["client_msg_id"], answer))

        payload = {"session_id": self.id, **said, **_given(more)}
        await self._caller.again("turn.start", payload, landed, within=timeout)
        return turns[-1]

    def turn(self, turn_id: str, seq: int = 1) -> SentTurn:
        """Return a turn that somebody else has started.

        Args:
            turn_id: its id.
            seq: the number of its first record, if that is known; otherwise the log is searched from its beginning.
        """
        return SentTurn(self, "", {"turn_id": turn_id, "seq": seq, "status": "", "duplicate": True, "durable": True})

    async def cancel(self, turn_id: str) -> dict[str, Any]:
        """Have a turn stopped; return `{"status", "outcome"?}`. It may be asked again, and of a turn that has ended."""
        answer: dict[str, Any] = await self._do("turn.cancel", turn_id=turn_id)
        return answer

    async def answer(self, approval_id: str, option_id: str) -> dict[str, Any]:
        """Answer a question of the agent; return `{"resolved_by", "option_id"}`.

        Raises:
            Conflict: it has an answer already, or needs none any more (`already_resolved`). If the connection broke
                meanwhile, that may be this very answer: the log says which one counts.
        """
        answer: dict[str, Any] = await self._do("approval.answer", approval_id=approval_id, option_id=option_id)
        return answer

    # -- the session itself -----------------------------------------------------------------------------

    async def update(self, *, title: str | None = None, variables: Mapping[str, Any] | None = None) -> None:
        """Change the title, or set variables; one that is None is removed."""
        await self._once("session.update", title=title, variables=variables)

    async def share(self, user: str, role: Literal["member", "viewer"] | None) -> None:
        """Share the session with a user; None ends that."""
        await self._caller.once("session.share", {"session_id": self.id, "user": user, "role": role})

    async def configure(self, *, mode: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Have the session's agent work in another mode, or with other options."""
        await self._once("session.configure", mode=mode, options=options)

    async def close(self) -> None:
        """Close it: its turns are cancelled, and it can be read but not written any more."""
        await self._do("session.close")

    async def delete(self) -> None:
        """Delete it, with its log. Iterators over its records end."""
        self._deleting = True
        try:
            await self._once("session.delete")
            self.end(self._gone())
        finally:
            self._deleting = False

    async def _do(self, action: str, **payload: Any) -> Any:
        return await self._caller.again(action, {"session_id": self.id, **_given(payload)})

    async def _once(self, action: str, **payload: Any) -> Any:
        return await self._caller.once(action, {"session_id": self.id, **_given(payload)})

    # -- what the broker says ---------------------------------------------------------------------------

    def hear(self, message: Message, size: int) -> None:
        """Take what the broker says of this session."""
        if message.seq is not None:
            self._take(message.seq, record_of(message), size)
        elif message.event == "session.detached":
            self.end(self._gone() if self._deleting else error_of(message.data))

    def end(self, trouble: Exception) -> None:
        """Follow it no more, nor go on from here if it is followed again."""
        super().end(trouble)
        self.epoch = None

    def _gone(self) -> Closed:
        return Closed(f"{self.name} was deleted.")

    async def _ask(self) -> None:
        place = {"after_seq": -1} if self.epoch is None else {"after_seq": self.seq, "epoch": self.epoch}
        await self._caller.until("session.attach", {"session_id": self.id, **place}, self._landed)

    def _landed(self, answer: Any) -> None:
        attached = msgspec.convert(answer, Attached)
        self.attached, self.floor = attached, attached.floor
        if self.epoch is None:
            self._entered(attached.epoch, attached.head, attached.head)
        elif attached.recovered:
            self._entered(attached.epoch, self.seq, attached.head)
        else:
            self.epoch, self.head = attached.epoch, attached.head
            self._restart(attached.floor - 1)
            self._entered(attached.epoch, attached.floor - 1, attached.head)

    async def _history(self, before: int, limit: int) -> list[tuple[int, Record]]:
        payload = {"session_id": self.id, "before_seq": before, "limit": limit}
        answer = await self._caller.until("session.history", payload)
        return [(record.seq, record) for record in map(_record, answer["records"])]


def _record(said: Any) -> Record:
    return msgspec.convert(said, Record)


def _given(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if value is not None}
