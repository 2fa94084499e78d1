"""The judge of a turn machine: told everything that comes out of it, it knows what may come and what is due (P5).

It goes by the records alone, and by what it is told of the agent's signs of life and of places.
"""

from math import inf
from typing import Any, Final

import msgspec

from broker.config.profiles import Deadlines
from broker.messages import Record, TurnRow
from broker.turns import AnswerApproval, AskSlot, CancelTurn, Command, CutLink, StartTurn

WALL: Final = 1_700_000_000_000
LADDER: Final = 10.0
"""How long a turn may take to stop (PROTOCOL section 3)."""
ALONE: Final = {"activity", "agent.state", "debug", "vendor.x"}
"""Records that need no turn."""
SPOKEN: Final = {"message", "thought", "tool", "usage", "vendor", "debug", "activity"}
"""First words of the records that an agent may add to its turn."""


class Judge:
    """The port of a machine, and what can be known of its turns.

    Attributes:
        now: the time; moved by hand.
        records: all that was written.
        rows: the latest saved state of each turn.
        accepted: when each turn was, by its id, in that order.
        ended: the outcome of each turn that has ended.
        queue: the turns that wait, in the order in which they will run.
        running: the turn that an agent has.
        state: where that turn stands.
        settled: when its agent settled it, if only stray output is waited for.
        questions: when each open one was asked.
        told: whether the present silence was told of.
        asked: the turn for which a place was last asked.
        ask: the number of that ask.
        unserved: since when it was known that there is no agent at all.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.records: list[Record] = []
        self.rows: dict[str, TurnRow] = {}
        self.accepted: dict[str, float] = {}
        self.ended: dict[str, str] = {}
        self.queue: list[str] = []
        self.running: str | None = None
        self.state = "none"
        self.settled: float | None = None
        self.questions: dict[str, float] = {}
        self.resolved: list[str] = []
        self.told = False
        self.asked: str | None = None
        self.ask = 0
        self.unserved: float | None = None
        self._content: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._causes: dict[str, dict[str, Any]] = {}
        self._given: set[str] = set()
        self._answered: set[str] = set()
        self._cut: str | None = None
        self._dispatched = self._since = self._heard = 0.0

    # -- the machine's port -------------------------------------------------------------------------

    def wall(self) -> int:
        return WALL + round(self.now * 1000)

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        self.records.append(Record(len(self.records) + 1, self.wall(), kind, data, turn_id))
        if turn_id is None:
            assert kind in ALONE, f"{kind} without a turn"
        else:
            assert turn_id not in self.ended, f"{kind} after the end of its turn"
            rule = getattr(self, f"_{kind.replace('.', '_')}", None)
            if rule is not None:
                rule(turn_id, msgspec.json.decode(data))
            else:
                assert kind.partition(".")[0] in SPOKEN
                assert turn_id == self.running, f"{kind} of a turn that does not run"
        return len(self.records)

    def save(self, row: TurnRow) -> None:
        turn_id = row.turn_id
        assert turn_id in self.accepted, "a row before its record"
        assert (row.outcome, row.state == "ended") == (self.ended.get(turn_id), turn_id in self.ended)
        before = self.rows.get(turn_id)
        assert before is None or before.outcome is None, "a turn saved after its end"
        self.rows[turn_id] = row

    def command(self, command: Command) -> None:
        match command:
            case StartTurn(prompt):
                assert self.rows[prompt.turn_id].state == "dispatching", "the agent is told before it is written"
                assert prompt.turn_id == self.running
                assert prompt.turn_id not in self._given, "given twice"
                assert msgspec.json.decode(prompt.content) == self._content[prompt.turn_id]
                self._given.add(prompt.turn_id)
            case CancelTurn(turn_id):
                assert self.rows[turn_id].state == "cancelling"
            case CutLink(turn_id):
                assert turn_id == self.running
                self._cut = turn_id
            case AnswerApproval(_, key, _):
                assert key not in self._answered, "the agent is answered twice"
                self._answered.add(key)
            case AskSlot(turn_id, number):
                assert (self.running, self.queue[0]) == (None, turn_id)
                assert self.asked != turn_id, "asked twice"
                assert number > self.ask, "two asks with one number"
                self.asked, self.ask, self.unserved = turn_id, number, None

    # -- what each record may mean --------------------------------------------------------------------

    def _user_message(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id not in self.accepted
        self.accepted[turn_id] = self.now
        self._content[turn_id] = data["content"]
        self.queue.append(turn_id)

    def _turn_queued(self, turn_id: str, data: dict[str, Any]) -> None:
        assert self.queue[-1] == turn_id
        if "interrupts" in data:
            self.queue.insert(0, self.queue.pop())
        assert data["ahead"] == (self.running is not None) + self.queue.index(turn_id)

    def _turn_edited(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id in self.queue
        self._content[turn_id] = data["content"]

    def _turn_started(self, turn_id: str, data: dict[str, Any]) -> None:
        assert self.running is None, "two turns run"
        assert self.queue.pop(0) == turn_id, "out of order"
        self.running, self._dispatched = turn_id, self.now
        self.enter("dispatching")

    def _turn_stalled(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        if "silent" in data:
            assert not self.told, "told twice of one silence"
            assert data["silent"] == round(self.now - self._heard, 3)
            self.told = True

    def _turn_cancelling(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        assert turn_id not in self._causes
        self._causes[turn_id] = data
        self.enter("cancelling")

    def _message_delta(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        assert data["text"], "a piece of nothing"
        message_id = data["message_id"]
        self._texts[message_id] = self._texts.get(message_id, "") + data["text"]

    _thought_delta = _message_delta

    def _message_replaced(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        assert data["message_id"] in self._texts, "it replaces what nobody has seen"
        self._texts[data["message_id"]] = data["content"]

    def _message_completed(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        assert data["content"] == self._texts[data["message_id"]], "the whole is not what was shown"

    def _approval_requested(self, turn_id: str, data: dict[str, Any]) -> None:
        assert turn_id == self.running
        assert self.state in {"running", "awaiting_approval"}
        self.questions[data["approval_id"]] = self.now
        self.enter("awaiting_approval")

    def _approval_resolved(self, turn_id: str, data: dict[str, Any]) -> None:
        assert data["approval_id"] in self.questions, "resolved twice"
        del self.questions[data["approval_id"]]
        self.resolved.append(data["approval_id"])
        if self.state == "awaiting_approval" and not self.questions:
            self._heard = self.now
            self.enter("running")

    def _turn_ended(self, turn_id: str, data: dict[str, Any]) -> None:
        outcome, cause = data["outcome"], self._causes.get(turn_id)
        began = turn_id == self.running
        if cause is not None:
            assert outcome == ("timed_out" if "deadline" in cause else "cancelled")
            assert data.get("deadline") == cause.get("deadline")
            assert outcome != "cancelled" or data["by"] == cause["by"]
        else:
            assert outcome in ({"completed", "failed", "lost"} if began else {"cancelled", "timed_out", "failed"})
        assert outcome == "completed" or data["reason"]
        if began:
            assert not self.questions, "it ended with open questions"
            self.running = self._cut = self.settled = None
            self.enter("none")
        else:
            self.queue.remove(turn_id)
        self.ended[turn_id] = outcome

    # -- what is due ----------------------------------------------------------------------------------

    def enter(self, state: str) -> None:
        self.state, self._since = state, self.now

    def hear(self) -> None:
        self._heard, self.told = self.now, False

    def wants_slot(self, turn_id: str) -> bool:
        """Tell whether the turn waits for an answer to what was asked last."""
        return self.running is None and bool(self.queue) and self.queue[0] == self.asked == turn_id

    def check_time(self, deadlines: Deadlines) -> None:
        """Let no turn be where it is for longer than it may be."""
        assert self._cut is None, "cut, and goes on"
        assert self.now < self._limit(deadlines), f"{self.state} for too long"
        if self.queue:
            assert self.now < min(self.accepted[turn] for turn in self.queue) + (deadlines.queue or inf)
            if self.wants_slot(self.queue[0]) and self.unserved is not None:
                assert self.now < self.unserved + (deadlines.start or inf)
        if self.state == "running" and self.settled is None and self.now >= self._heard + (deadlines.stalled or inf):
            assert self.told

    def _limit(self, deadlines: Deadlines) -> float:
        if self.running is None:
            return inf
        if self.state == "cancelling":
            limit = self._since + LADDER
        elif self.settled is not None:
            limit = inf
        else:
            limit = min(self._dispatched + (deadlines.turn or inf), self._next_of(deadlines))
        return limit if self.settled is None else min(limit, self.settled + deadlines.settle)

    def _next_of(self, deadlines: Deadlines) -> float:
        if self.state == "dispatching":
            return self._since + (deadlines.start or inf)
        if self.state == "awaiting_approval":
            return min(self.questions.values()) + (deadlines.approval or inf)
        return self._heard + (deadlines.idle or inf)
