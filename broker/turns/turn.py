"""One turn and the questions it waits for: plain state, and how it looks from outside."""

import hashlib
from typing import Any

import attrs
import msgspec

from broker.messages import TurnRow, TurnState

__all__ = ["Approval", "Turn", "digest_of"]


@attrs.define
class Approval:
    """A question that waits for a person."""

    approval_id: str
    key: str
    title: str
    options: bytes
    tool: bytes | None

    def view(self) -> dict[str, Any]:
        """Return what people are told of it."""
        data: dict[str, Any] = {
            "approval_id": self.approval_id,
            "title": self.title,
            "options": msgspec.Raw(self.options),
        }
        if self.tool is not None:
            data["tool"] = msgspec.Raw(self.tool)
        return data


@attrs.define(eq=False)
class Turn:
    """One turn from its acceptance to its end."""

    turn_id: str
    seq: int
    user: str | None
    client_msg_id: str
    digest: bytes
    content: bytes | None
    state: TurnState = "queued"
    outcome: str | None = None
    produced: bool = False
    cancelled_by: str | None = None
    approvals: dict[str, Approval] = attrs.Factory(dict)

    def view(self) -> dict[str, Any]:
        """Return what people who attach are told of it."""
        return {
            "turn_id": self.turn_id,
            "state": self.state,
            "user": self.user,
            "client_msg_id": self.client_msg_id,
        }

    def row(self, session_id: str) -> TurnRow:
        """Return what is kept of the turn."""
        return TurnRow(
            session_id=session_id,
            turn_id=self.turn_id,
            seq=self.seq,
            user=self.user,
            client_msg_id=self.client_msg_id,
            digest=self.digest,
            state=self.state,
            outcome=self.outcome,
            content=self.content,
        )


def digest_of(content: bytes) -> bytes:
    """Return what two contents are compared by."""
    return hashlib.blake2b(content, digest_size=16).digest()
