"""The turn machine: what a session's turns may do, without a loop, a store or an agent.

Events go in as method calls; records, rows to save and commands to the agent come out through the
`Out` port, in the order in which they have to take effect. Whoever drives the machine makes them
durable first and carries out the commands afterwards (PROTOCOL sections 1 and 3). Time comes in as
an argument, so that a test moves it by hand.

What people do, and what an earlier run of the broker left, is here; what the agent and time do is in `Lane`.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.ids import made_at, new_id
from broker.messages import TurnRow
from broker.operations import IfBusy
from broker.turns.commands import Accepted, Out
from broker.turns.ending import stopped
from broker.turns.lane import Lane
from broker.turns.ledger import Ledger
from broker.turns.leftovers import Leftovers
from broker.turns.rules import TurnRules
from broker.turns.turn import Turn, digest_of

__all__ = ["TurnMachine"]

STOPPED: Final = "the broker stopped while the turn was running"
_encode: Final = msgspec.json.Encoder().encode


class TurnMachine(Lane):
    """The turns of one session: one running, the others in a bounded queue, each ending exactly once.

    Attributes:
        variables: the session's, a JSON object, for the next turn.

    Args:
        session_id: the session.
        out: where records, rows and commands go.
        rules: what its turns are bound by.
        workspace_dir: where its agent may work, if it names a directory.
    """

    def __init__(self, session_id: str, out: Out, rules: TurnRules, *, workspace_dir: str | None) -> None:
        super().__init__(session_id, out, rules, workspace_dir=workspace_dir)
        self._ledger = Ledger()

    # -- what people do -----------------------------------------------------------------------------

    def accept(
        self,
        *,
        user: str | None,
        client_msg_id: str,
        content: bytes,
        if_busy: IfBusy,
        now: float,
        retry_of: str | None = None,
        metadata: bytes = b"{}",
    ) -> Accepted:
        """Accept a turn, or recognise one that was accepted before (P4).

        Args:
            user: who starts it, None for anonymous.
            client_msg_id: the id under which it may be sent again.
            content: JSON of what it says.
            if_busy: what to do while another turn runs or waits.
            now: the time.
            retry_of: an ended turn that is tried again.
            metadata: a JSON object that is kept with the message.

        Raises:
            BrokerError: `conflict`, `not_found`, `busy` or `queue_full`; nothing has changed then.
        """
        digest = digest_of(content, metadata)
        known = self._ledger.same(user, client_msg_id, digest)
        if known is not None:
            return Accepted(known.turn_id, known.seq, known.state, duplicate=True)
        self._check_room(if_busy)
        if retry_of is not None:
            self._ledger.check_retry(retry_of)
        turn = Turn(self._session_id, new_id(), 0, user, client_msg_id, digest, content)
        turn.retry_of, turn.accepted_at = retry_of, now
        turn.seq = self._write_message("user.message", turn, metadata)
        self._ledger.add(turn)
        self._start(turn, interrupts=if_busy == "interrupt", now=now)
        return Accepted(turn.turn_id, turn.seq, turn.state, duplicate=False)

    def edit(self, turn_id: str, content: bytes, *, user: str | None, now: float) -> Turn:
        """Change what a turn that waits is to say, for its author; under its id it stays known as first sent (P4).

        Raises:
            BrokerError: `not_found`, `forbidden`, `conflict` or `already_ended`; nothing has changed then.
        """
        turn = self._ledger.waiting(turn_id, user)
        turn.content = content
        self._write_message("turn.edited", turn)
        self._out.save(turn.row())
        return turn

    def drop(self, turn_id: str, *, user: str | None, now: float) -> Turn:
        """Take a turn back that waits, for its author.

        Raises:
            BrokerError: `not_found`, `forbidden`, `conflict` or `already_ended`; nothing has changed then.
        """
        turn = self._ledger.waiting(turn_id, user)
        self._stop(turn, stopped("taken back", user), now)
        self._next(now)
        return turn

    def cancel(self, turn_id: str, *, by: str | None, now: float) -> Turn:
        """Cancel a turn and return it; a turn that is ending or has ended is left as it is.

        Raises:
            BrokerError: `not_found`.
        """
        turn = self._ledger.find(turn_id)
        self._stop(turn, stopped("cancelled", by), now)
        self._next(now)
        return turn

    def answer(self, approval_id: str, option_id: str, *, by: str | None, now: float) -> None:
        """Answer a question of the agent's; the first valid answer wins.

        Raises:
            BrokerError: `already_resolved`, `not_found`, or `invalid_message` for an option never offered.
        """
        self._approvals.answer(approval_id, option_id, by=by)
        if self._flight is not None:
            self._flight.answered(now)

    # -- the session's life -------------------------------------------------------------------------

    def recover(self, rows: Iterable[TurnRow], leftovers: Leftovers, *, now: float) -> None:
        """Take up the turns of an earlier run: what was dispatched is lost, what was queued goes on (P5).

        Args:
            rows: all turns of the session, in the order of their acceptance.
            leftovers: what the log says of those that have not ended.
            now: the time.
        """
        for approval_id, resolution in leftovers.resolved.items():
            self._approvals.remember(approval_id, resolution)
        for row in rows:
            turn = Turn.of(row)
            self._ledger.add(turn)
            if turn.state == "ended":
                continue
            turn.retry_of = leftovers.retries.get(turn.turn_id)
            if turn.state == "queued":
                turn.accepted_at = now - self._age_of(turn)
                self._waiting.add(turn, first=turn.turn_id in leftovers.interrupts)
            else:
                self._abandon(turn, leftovers)
        self._next(now)

    def close(self, by: str | None, *, now: float) -> None:
        """Stop everything: the session is being closed."""
        cause = stopped("the session was closed", by)
        for turn in list(self._waiting):
            self._stop(turn, cause, now)
        if self._flight is not None:
            self._flight.cancel(cause, now)

    # -- how it looks -------------------------------------------------------------------------------

    def knows(self, user: str | None, client_msg_id: str) -> bool:
        """Tell whether a turn was accepted under this id before, so that sending it again is answered again (P4)."""
        return self._ledger.knows(user, client_msg_id)

    def view(self) -> dict[str, Any]:
        """Return what a client that attaches is told: `turn`, `queue` and `approvals`."""
        return {
            "turn": None if self._flight is None else self._flight.view(),
            "queue": [turn.view() for turn in self._waiting],
            "approvals": self._approvals.views(),
        }

    # -- inside -------------------------------------------------------------------------------------

    def _check_room(self, if_busy: IfBusy) -> None:
        if not self.busy:
            return
        if if_busy == "reject":
            raise BrokerError("busy", hint='send it with if_busy "queue", or cancel the running turn')
        if self._waiting.full:
            raise BrokerError("queue_full", f"{len(self._waiting)} turns are waiting already.", retry_after=1.0)

    def _write_message(self, kind: str, turn: Turn, metadata: bytes = b"{}") -> int:
        message: dict[str, Any] = {
            "message_id": turn.turn_id,
            "role": "user",
            "content": msgspec.Raw(turn.content or b'""'),
            "client_msg_id": turn.client_msg_id,
            "author": turn.user,
        }
        if turn.retry_of is not None:
            message["retry_of"] = turn.retry_of
        if metadata != b"{}":
            message["metadata"] = msgspec.Raw(metadata)
        return self._out.write(kind, _encode(message), turn.turn_id)

    def _abandon(self, turn: Turn, leftovers: Leftovers) -> None:
        """End a turn that an earlier run of the broker had given to an agent."""
        for approval_id in leftovers.approvals_of(turn.turn_id):
            self._approvals.abandon(turn.turn_id, approval_id, STOPPED)
        self._end(turn, leftovers.ending_of(turn, STOPPED))

    def _age_of(self, turn: Turn) -> float:
        """Return for how many seconds a turn of an earlier run has been there, by the time inside its id."""
        made = made_at(turn.turn_id)
        return 0.0 if made is None else max(0.0, (self._out.wall() - made) / 1000)
