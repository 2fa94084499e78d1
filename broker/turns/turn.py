"""One turn, from its acceptance on: plain state, and how it looks from outside."""

import hashlib
from typing import Any

import attrs

from broker.messages import TurnRow, TurnState

__all__ = ["Turn", "digest_of"]


@attrs.define(eq=False)
class Turn:
    """One turn; remembered after its end, for it may be sent again (P4).

    Attributes:
        session_id: its session.
        turn_id: its id.
        seq: the number of its `user.message`.
        user: who started it, None for anonymous.
        client_msg_id: the id under which it may be sent again.
        digest: a hash of what was first sent under that id.
        content: what it says, JSON; None once it has ended.
        state: where it stands.
        outcome: how it ended, None while it has not.
        retry_of: the turn that is tried again with it.
        accepted_at: when it was accepted, in seconds on the machine's clock.
    """

    session_id: str
    turn_id: str
    seq: int
    user: str | None
    client_msg_id: str
    digest: bytes
    content: bytes | None
    state: TurnState = "queued"
    outcome: str | None = None
    retry_of: str | None = None
    accepted_at: float = 0.0

    def view(self) -> dict[str, Any]:
        """Return what people who attach are told of it."""
        view: dict[str, Any] = {
            "turn_id": self.turn_id,
            "state": self.state,
            "user": self.user,
            "client_msg_id": self.client_msg_id,
        }
        if self.retry_of is not None:
            view["retry_of"] = self.retry_of
        return view

    def row(self) -> TurnRow:
        """Return what is kept of the turn."""
        return TurnRow(
            session_id=self.session_id,
            turn_id=self.turn_id,
            seq=self.seq,
            user=self.user,
            client_msg_id=self.client_msg_id,
            digest=self.digest,
            state=self.state,
            outcome=self.outcome,
            content=self.content,
        )

    @classmethod
    def of(cls, row: TurnRow) -> "Turn":
        """Return the turn of which `row` was kept."""
        return cls(
            row.session_id,
            row.turn_id,
            row.seq,
            row.user,
            row.client_msg_id,
            row.digest,
            row.content,
            row.state,
            row.outcome,
        )


def digest_of(content: bytes, metadata: bytes = b"{}") -> bytes:
    """Return what two messages are compared by: what they say, and what goes with them if anything does."""
    said = content if metadata == b"{}" else b"%b\0%b" % (content, metadata)  # JSON has no zero byte
    return hashlib.blake2b(said, digest_size=16).digest()
