"""P5 under any sequence of events: every accepted turn ends exactly once, and a planted fault is seen."""

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from broker.errors import BrokerError
from broker.messages import AgentLost, AgentRecord, ApprovalRequested, TextDelta, TurnFailed, TurnRow, TurnSettled
from broker.turns import AnswerApproval, CancelTurn, Command, CutLink, StartTurn, TurnMachine
from broker.turns.turn import Turn

KINDS = ("message.delta", "message.completed", "thought.delta", "tool.started", "approval.requested", "turn.started")
QUEUE = 3


class Log:
    """Checks what comes out of a machine as it comes out."""

    def __init__(self) -> None:
        self.seq = 0
        self.open: set[str] = set()
        self.ended: set[str] = set()
        self.started: list[str] = []
        self.rows: dict[str, TurnRow] = {}
        self.approvals: set[str] = set()

    def write(self, kind: str, data: bytes, turn_id: str | None = None) -> int:
        self.seq += 1
        if turn_id is None:
            return self.seq
        assert turn_id not in self.ended, f"{kind} after the end of its turn"
        match kind:
            case "user.message":
                assert turn_id not in self.open
                self.open.add(turn_id)
            case "turn.started":
                assert turn_id not in self.started, "started twice"
                assert not self.running, "two turns run"
                self.started.append(turn_id)
            case "turn.ended":
                self.open.remove(turn_id)
                self.ended.add(turn_id)
            case "turn.queued" | "turn.cancelling" | "approval.resolved":
                assert turn_id in self.open
            case _:
                assert kind in KINDS
                assert turn_id in self.running, f"{kind} of a turn that does not run"
        return self.seq

    @property
    def running(self) -> set[str]:
        return {turn_id for turn_id in self.started if turn_id in self.open}

    def save(self, row: TurnRow) -> None:
        assert row.turn_id in self.open | self.ended, "a row before its record"
        assert (row.outcome is not None) == (row.turn_id in self.ended)
        assert (row.state == "ended") == (row.turn_id in self.ended)
        before = self.rows.get(row.turn_id)
        assert before is None or before.outcome is None, "a turn saved after its end"
        self.rows[row.turn_id] = row

    def command(self, command: Command) -> None:
        match command:
            case StartTurn(prompt):
                assert self.rows[prompt.turn_id].state == "dispatching", "the agent is told before it is written"
                assert prompt.turn_id in self.running
            case CancelTurn(turn_id):
                assert self.rows[turn_id].state == "cancelling"
            case CutLink(turn_id):
                assert turn_id in self.running
            case AnswerApproval():
                pass


class Life(RuleBasedStateMachine):
    """Anything that can happen to the turns of one session, in any order."""

    machine_class: type[TurnMachine] = TurnMachine
    turns: Any = Bundle("turns")

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.machine = self.make()
        self.now = 0.0
        self.number = 0
        self.known: dict[str, str] = {}
        self.order: list[str] = []

    def make(self) -> TurnMachine:
        return self.machine_class("s", self.log, queue_limit=QUEUE, agent="fake", workspace_dir=None)

    @rule(target=turns, if_busy=st.sampled_from(["queue", "reject", "interrupt"]))
    def start(self, if_busy: Any) -> str:
        self.number += 1
        key, before = f"m{self.number}", self.log.seq
        try:
            accepted = self.machine.accept(user=None, client_msg_id=key, content=b'"hi"', if_busy=if_busy, now=self.now)
        except BrokerError as e:
            refused = e.code
        else:
            refused = None
        if refused is not None:
            assert refused in {"busy", "queue_full"}
            assert self.log.seq == before
            return "refused"
        assert not accepted.duplicate
        assert accepted.seq > before
        self.known[accepted.turn_id] = key
        self.order.append(accepted.turn_id)
        return accepted.turn_id

    @rule(turn_id=turns)
    def start_again(self, turn_id: str) -> None:
        if key := self.known.get(turn_id):
            before = self.log.seq
            again = self.machine.accept(user=None, client_msg_id=key, content=b'"hi"', if_busy="reject", now=self.now)
            assert (again.turn_id, again.duplicate) == (turn_id, True)
            assert (again.status == "ended") == (turn_id in self.log.ended)
            assert self.log.seq == before

    @rule(turn_id=turns)
    def cancel(self, turn_id: str) -> None:
        if turn_id in self.known:
            turn = self.machine.cancel(turn_id, by=None, now=self.now)
            assert turn.state in {"cancelling", "ended"}

    @rule(turn_id=turns, thought=st.booleans(), message_id=st.sampled_from([None, "1"]))
    def say(self, turn_id: str, thought: bool, message_id: str | None) -> None:
        self.machine.agent(TextDelta(turn_id, "word ", thought, message_id), now=self.now)

    @rule(turn_id=turns)
    def report(self, turn_id: str) -> None:
        self.machine.agent(AgentRecord(turn_id, "tool.started", b"{}"), now=self.now)

    @rule(turn_id=turns)
    def ask(self, turn_id: str) -> None:
        self.machine.agent(ApprovalRequested(turn_id, "k", "?", b'[{"option_id":"yes"}]'), now=self.now)

    @rule()
    def answer(self) -> None:
        for approval in self.machine.view()["approvals"][:1]:
            self.machine.answer(approval["approval_id"], "yes", by=None)

    @rule(turn_id=turns)
    def settle(self, turn_id: str) -> None:
        self.machine.agent(TurnSettled(turn_id, "end_turn"), now=self.now)

    @rule(turn_id=consumes(turns))
    def fail(self, turn_id: str) -> None:
        self.machine.agent(TurnFailed(turn_id, "internal", "no"), now=self.now)

    @rule()
    def die(self) -> None:
        self.machine.agent(AgentLost("it died"), now=self.now)

    @rule(seconds=st.sampled_from([0.01, 0.05, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = self.machine.next_deadline()
        self.machine.tick(self.now)
        left = self.machine.next_deadline()
        assert left is None or left > self.now, f"{due} was due and is not done"

    @rule()
    def restart(self) -> None:
        """Kill the broker: what the machine had saved is all there is."""
        rows = [self.log.rows[turn_id] for turn_id in self.order]
        self.machine = self.make()
        self.machine.recover(rows, produced=None, approvals=())

    @rule()
    def close(self) -> None:
        self.machine.close(None, self.now)

    @invariant()
    def at_most_one_runs_and_the_queue_is_bounded(self) -> None:
        assert len(self.log.running) <= 1
        view = self.machine.view()
        assert self.log.running == ({view["turn"]["turn_id"]} if view["turn"] else set())
        assert len(view["queue"]) <= QUEUE
        assert self.log.open == self.log.running | {turn["turn_id"] for turn in view["queue"]}
        assert self.machine.busy == bool(self.log.open)

    @invariant()
    def nobody_waits_while_nothing_runs(self) -> None:
        assert self.log.running or not self.log.open

    def teardown(self) -> None:
        """However it went: with time, every turn ends."""
        while self.machine.running is not None:
            self.machine.cancel(self.machine.running.turn_id, by=None, now=self.now)
            self.now += 60.0
            self.machine.tick(self.now)
        assert self.log.ended == set(self.known)
        assert not self.log.open


def test_every_turn_ends_exactly_once_whatever_happens() -> None:
    run_state_machine_as_test(Life, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))


class EndsTwice(TurnMachine):
    def _end(self, turn: Turn, outcome: str, **more: Any) -> None:
        super()._end(turn, outcome, **more)
        if outcome == "lost":
            super()._end(turn, outcome, **more)


class ForgetsToEnd(TurnMachine):
    def lose(self, reason: str) -> None:
        self.running = None


class RunsTwo(TurnMachine):
    def _dispatch_next(self) -> None:
        if self._queue:
            self.running = None
        super()._dispatch_next()


class TellsTheAgentFirst(TurnMachine):
    def _dispatch_next(self) -> None:
        for turn in list(self._queue)[:1]:
            if self.running is None:
                self._out.command(CancelTurn(turn.turn_id))
        super()._dispatch_next()


@pytest.mark.parametrize("faulty", [EndsTwice, ForgetsToEnd, RunsTwo, TellsTheAgentFirst])
def test_the_checker_sees_a_planted_fault(faulty: type[TurnMachine]) -> None:
    life = type(f"Life of {faulty.__name__}", (Life,), {"machine_class": faulty})
    few = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate],  # that there is one is enough, however large
    )
    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        run_state_machine_as_test(life, settings=few)
