"""P5 under any sequence of events: every accepted turn ends exactly once and in time; planted faults are found."""

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from broker.config.profiles import Deadlines
from broker.messages import AgentEvent, AgentLost, AgentRecord, SlotAnswer, TextDelta, TextReplaced, TurnSettled
from broker.turns import CancelTurn, TurnMachine, TurnRules
from broker.turns.leftovers import leftovers_of
from broker.turns.turn import Turn


@pytest.fixture
def live(life: Any, judge: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let machines of a class live many lives, always the same ones."""
    monkeypatch.setattr("broker.ids.time", life.clock)

    def lived(machine_class: type[TurnMachine], examples: int, **more: Any) -> None:
        members = {"machine_class": machine_class, "judge_class": judge.Judge}
        lives = type(f"Life of {machine_class.__name__}", (life.Life,), members)
        how = settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **more,
        )
        run_state_machine_as_test(lives, settings=how)

    return lived


def test_every_turn_ends_exactly_once_and_in_time_whatever_happens(live: Any) -> None:
    live(TurnMachine, 100)


# -- planted faults ------------------------------------------------------------------------------------


class EndsTwice(TurnMachine):
    def _end(self, turn: Turn, ending: Any) -> None:
        super()._end(turn, ending)
        if ending.outcome == "lost":
            super()._end(turn, ending)


class IgnoresLoss(TurnMachine):
    def lose(self, reason: str, *, now: float) -> None:
        pass


class ForgetsLostTurns(TurnMachine):
    def lose(self, reason: str, *, now: float) -> None:
        self._flight = None
        self._next(now)


class NeverArmed(TurnMachine):
    def next_deadline(self) -> float | None:
        due = super().next_deadline()
        return None if self._flight is not None and self._flight.turn.state == "running" else due


class NeverIdle(TurnMachine):
    def __init__(self, session_id: str, out: Any, rules: TurnRules, **more: Any) -> None:
        super().__init__(session_id, out, rules, **more)
        self._rules = TurnRules(agent="fake", limited=rules.limited, deadlines=Deadlines(start=5, approval=6, idle=0))


class AnswersTwice(TurnMachine):
    def answer(self, approval_id: str, option_id: str, *, by: str | None, now: float) -> None:
        approval = self._approvals._open.get(approval_id)
        super().answer(approval_id, option_id, by=by, now=now)
        if approval is not None:
            self._approvals._open[approval_id] = approval
            del self._approvals._resolved[approval_id]


class LeavesQuestionsOpen(TurnMachine):
    def _end(self, turn: Turn, ending: Any) -> None:
        super()._end(turn, ending)
        self._approvals._open.update(getattr(self, "_kept", {}))

    def agent(self, event: AgentEvent, *, now: float) -> None:
        self._kept = dict(self._approvals._open) if isinstance(event, TurnSettled) else {}
        super().agent(event, now=now)


class RunsTwo(TurnMachine):
    def _next(self, now: float) -> None:
        if self._waiting:
            self._flight = None
        super()._next(now)


class TellsTheAgentFirst(TurnMachine):
    def _dispatch(self, turn: Turn, now: float) -> None:
        self._out.command(CancelTurn(turn.turn_id))
        super()._dispatch(turn, now)


class RunsAgainAfterARestart(TurnMachine):
    def recover(self, rows: Any, leftovers: Any, *, now: float) -> None:
        again = [attrs.evolve(row, state="queued") if row.state == "dispatching" else row for row in rows]
        super().recover(again, leftovers, now=now)


class ForgetsWhoInterrupted(TurnMachine):
    def recover(self, rows: Any, leftovers: Any, *, now: float) -> None:
        super().recover(rows, leftovers_of([]), now=now)


class LosesAPlace(TurnMachine):
    def slot(self, answer: SlotAnswer, *, now: float) -> bool:
        return answer.state != "granted" and super().slot(answer, now=now)


class HearsTheDead(TurnMachine):
    def agent(self, event: AgentEvent, *, now: float) -> None:
        if isinstance(event, TextDelta) and event.turn_id in self._ledger._turns:
            self._out.write("message.delta", b"{}", event.turn_id)
        super().agent(event, now=now)


class DiesOfAnothersDeath(TurnMachine):
    def _loses(self, event: AgentLost) -> bool:
        return True


class BelievesReports(TurnMachine):
    def agent(self, event: AgentEvent, *, now: float) -> None:
        if isinstance(event, AgentRecord) and event.turn_id is not None and event.kind == "turn.ended":
            self._out.write(event.kind, event.data, event.turn_id)
        super().agent(event, now=now)


class ReplacesUnderTheAgentsId(TurnMachine):
    def agent(self, event: AgentEvent, *, now: float) -> None:
        if isinstance(event, TextReplaced) and self.running is not None and event.turn_id == self.running.turn_id:
            data = {"message_id": event.message_id, "content": event.text}
            self._out.write("message.replaced", msgspec.json.encode(data), event.turn_id)
        super().agent(event, now=now)


class HearsAnOldAnswer(TurnMachine):
    def slot(self, answer: SlotAnswer, *, now: float) -> bool:
        return super().slot(attrs.evolve(answer, number=self._waiting._asks), now=now)


class GoesOnWhenFull(TurnMachine):
    def _turn_away(self) -> None:
        self._dispatch(self._waiting.take(), 0.0)


class GivesARunningTurnsPlaceBack(TurnMachine):
    def slot(self, answer: SlotAnswer, *, now: float) -> bool:
        runs = self.running is not None and answer.turn_id == self.running.turn_id
        return super().slot(answer, now=now) and not runs


FAULTS = [
    EndsTwice,
    IgnoresLoss,
    ForgetsLostTurns,
    NeverArmed,
    NeverIdle,
    AnswersTwice,
    LeavesQuestionsOpen,
    RunsTwo,
    TellsTheAgentFirst,
    RunsAgainAfterARestart,
    ForgetsWhoInterrupted,
    LosesAPlace,
    HearsTheDead,
    DiesOfAnothersDeath,
    BelievesReports,
    ReplacesUnderTheAgentsId,
    GivesARunningTurnsPlaceBack,
    GoesOnWhenFull,
    HearsAnOldAnswer,
]


@pytest.mark.parametrize("faulty", FAULTS)
def test_a_planted_fault_is_found(live: Any, faulty: type[TurnMachine]) -> None:
    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        live(faulty, 300, phases=[Phase.generate])  # that there is one is enough, however large
