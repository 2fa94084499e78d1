"""What an agent asks people: durable, answered by id, by the first valid answer (PROTOCOL section 3)."""

from math import inf
from typing import Any, Final, Literal

import attrs
import msgspec

from broker.clock import rfc3339
from broker.config.profiles import Approvals as Policy
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import ApprovalRequested
from broker.turns.commands import AnswerApproval, Out
from broker.turns.outside import refuse
from broker.turns.rules import TurnRules

__all__ = ["OPEN_LIMIT", "RESOLVED_LIMIT", "Approvals", "Resolution"]

OPEN_LIMIT: Final = 64
"""Questions that one turn may have open at a time; a person answers few, a broken agent asks for ever."""
RESOLVED_LIMIT: Final = 1000
"""Answered questions that are remembered, so that who comes second learns who was first."""

_POLICIES: Final = {
    "ask": frozenset[str](),
    "allow": frozenset({"allow_once", "allow_always"}),
    "reject": frozenset({"reject_once", "reject_always"}),
}
"""Which kinds of options each policy chooses (`broker.config.profiles.Approvals`)."""
_encode: Final = msgspec.json.Encoder().encode

Closing = Literal["cancelled", "expired", "void"]


@attrs.frozen
class Resolution:
    """How a question was resolved.

    Attributes:
        outcome: `selected` by an answer; `cancelled` with its turn; `expired`; `void` as its turn or agent went.
        option_id: the option that was chosen.
        by: who chose it, `policy` for the profile's rule, None for an anonymous person or nobody.
    """

    outcome: Literal["selected", "cancelled", "expired", "void"]
    option_id: str | None = None
    by: str | None = None

    def sentence(self) -> str:
        """Tell a person who comes too late."""
        if self.outcome == "selected":
            return f"That approval was answered {self.option_id} by {self.by or 'anonymous'}."
        how = {"cancelled": "was cancelled with its turn", "expired": "has expired", "void": "was voided"}
        return f"That approval {how[self.outcome]}."


@attrs.define(eq=False)
class Approval:
    """A question that waits for a person."""

    turn_id: str
    approval_id: str
    key: str
    title: str
    options: bytes
    choices: dict[str, str]
    tool: bytes | None
    expires: float
    expires_at: str | None

    def view(self) -> dict[str, Any]:
        """Return what people are told of it."""
        data: dict[str, Any] = {
            "approval_id": self.approval_id,
            "title": self.title,
            "options": msgspec.Raw(self.options),
            "expires_at": self.expires_at,
        }
        if self.tool is not None:
            data["tool"] = msgspec.Raw(self.tool)
        return data


class Approvals:
    """The open questions of the running turn, and how the latest ones were resolved."""

    def __init__(self, out: Out, rules: TurnRules) -> None:
        self._out = out
        self._seconds = rules.deadlines.approval
        self.govern(rules.approvals)
        self._open: dict[str, Approval] = {}
        self._resolved: dict[str, Resolution] = {}

    @property
    def due(self) -> float:
        """When the oldest question expires; infinity for never."""
        return next(iter(self._open.values())).expires if self._open else inf

    @property
    def waiting(self) -> bool:
        """Whether a person is asked."""
        return bool(self._open)

    def views(self) -> list[dict[str, Any]]:
        """Return what people who attach are told of the open questions."""
        return [approval.view() for approval in self._open.values()]

    def govern(self, policy: Policy) -> None:
        """From now on, have questions answered by this policy."""
        self._chosen_kinds = _POLICIES[policy]

    def request(self, event: ApprovalRequested, now: float) -> bool:
        """Ask a person, or answer by the profile's policy; a question nobody can answer is refused at once.

        Returns:
            Whether a person is asked.
        """
        options, choices = _choices_of(event.options)
        if not choices:
            refuse(event, "it offers nothing that could be chosen", self._out)
            return False
        if len(self._open) >= OPEN_LIMIT:
            refuse(event, f"{OPEN_LIMIT} questions of the turn are open already", self._out)
            return False
        approval = self._make(event, options, choices, now)
        self._open[approval.approval_id] = approval
        self._out.write("approval.requested", _encode(approval.view()), approval.turn_id)
        chosen = next((option for option, kind in choices.items() if kind in self._chosen_kinds), None)
        if chosen is None:
            return True
        self._select(approval, chosen, "policy")
        return False

    def answer(self, approval_id: str, option_id: str, *, by: str | None) -> None:
        """Take a person's answer; the first valid one wins.

        Raises:
            BrokerError: `already_resolved`, `not_found`, or `invalid_message` for an option never offered.
        """
        if (resolution := self._resolved.get(approval_id)) is not None:
            raise BrokerError("already_resolved", resolution.sentence())
        approval = self._open.get(approval_id)
        if approval is None:
            raise BrokerError("not_found", "This session has no such approval.", field="$.payload.approval_id")
        if option_id not in approval.choices:
            hint = f"one of: {', '.join(approval.choices)}"
            raise BrokerError("invalid_message", "That option was not offered.", field="$.payload.option_id", hint=hint)
        self._select(approval, option_id, by)

    def expire(self, now: float) -> None:
        """Close the questions whose time is over."""
        for approval in [approval for approval in self._open.values() if now >= approval.expires]:
            self._close(approval, Resolution("expired"), "nobody answered in time", tell_agent=True)

    def close(self, outcome: Closing, reason: str, *, by: str | None = None, tell_agent: bool) -> None:
        """Close all open questions; the agent, if it is still there, is told that they were cancelled."""
        for approval in list(self._open.values()):
            self._close(approval, Resolution(outcome, None, by), reason, tell_agent=tell_agent)

    def abandon(self, turn_id: str, approval_id: str, reason: str) -> None:
        """Void a question that an earlier run of the broker left open."""
        self._resolve(turn_id, approval_id, Resolution("void"), reason)

    def remember(self, approval_id: str, resolution: Resolution) -> None:
        """Keep how a question was resolved, for whoever answers it again."""
        self._resolved[approval_id] = resolution
        if len(self._resolved) > RESOLVED_LIMIT:
            del self._resolved[next(iter(self._resolved))]

    # -- inside -------------------------------------------------------------------------------------

    def _make(self, event: ApprovalRequested, options: bytes, choices: dict[str, str], now: float) -> Approval:
        limit = self._seconds
        until = rfc3339(self._out.wall() + round(limit * 1000)) if limit else None
        tool = event.tool if event.tool is not None and _read(event.tool) is not None else None
        return Approval(
            event.turn_id, new_id(), event.key, event.title, options, choices, tool, now + (limit or inf), until
        )

    def _select(self, approval: Approval, option_id: str, by: str | None) -> None:
        del self._open[approval.approval_id]
        self._resolve(approval.turn_id, approval.approval_id, Resolution("selected", option_id, by))
        self._out.command(AnswerApproval(approval.turn_id, approval.key, option_id))

    def _close(self, approval: Approval, resolution: Resolution, reason: str, *, tell_agent: bool) -> None:
        del self._open[approval.approval_id]
        self._resolve(approval.turn_id, approval.approval_id, resolution, reason)
        if tell_agent:
            self._out.command(AnswerApproval(approval.turn_id, approval.key, None))

    def _resolve(self, turn_id: str, approval_id: str, resolution: Resolution, reason: str | None = None) -> None:
        self.remember(approval_id, resolution)
        data = {
            "approval_id": approval_id,
            "outcome": resolution.outcome,
            "option_id": resolution.option_id,
            "resolved_by": resolution.by,
        }
        if reason is not None:
            data["reason"] = reason
        self._out.write("approval.resolved", _encode(data), turn_id)


def _choices_of(options: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the options that can be read, as JSON, and the kind of each by its id."""
    offered = _read(options)
    if not isinstance(offered, list):
        return b"[]", {}
    readable = [option for option in offered if isinstance(option, dict) and isinstance(option.get("option_id"), str)]
    choices = {option["option_id"]: str(option.get("kind", "")) for option in readable}
    return (options if len(readable) == len(offered) else _encode(readable)), choices


def _read(data: bytes) -> Any:
    """Return what JSON says, None if it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
