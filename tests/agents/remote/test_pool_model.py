"""No order of turns, links and time leaves a turn of the pool's without an end, or gives it two."""

import json
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from broker.agents.port import Opening
from broker.agents.remote.frames import Hello, Running
from broker.agents.remote.line import Line
from broker.agents.remote.member import LET_GO, Member
from broker.agents.remote.pool import Pool
from broker.messages import AgentEvent, AgentLost, Prompt, TurnFailed, TurnSettled
from broker.testing import ManualClock

REATTACH = 30.0
PICK = st.integers(0, 1000)
ENDS = (AgentLost, TurnFailed, TurnSettled)


class Far:
    """An agent that does what it is told: it has what it was given, until it is done with it."""

    heartbeat = 15.0

    def __init__(self, name: str, running: dict[str, int]) -> None:
        self.name = name
        self.running = running
        self.asked: set[str] = set()
        self.full = False
        self.on_room = lambda: None
        self.errors: Counter[str] = Counter()
        self.member: Member

    def send(self, frame: bytes) -> None:
        told = json.loads(frame)
        turn_id = told["data"].get("turn_id")
        if told["type"] == "turn_start":
            assert turn_id not in self.running, "given twice"
            self.running[turn_id] = 0
        elif told["type"] == "turn_cancel":
            assert turn_id in self.running, "asked to stop what it has not"
            self.asked.add(turn_id)
        else:
            assert told["type"] in {"welcome", "turn_resume"}, told

    def pause(self) -> None:
        raise AssertionError

    resume = pause

    def close(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))

    def say(self, kind: str, turn_id: str, **data: Any) -> None:
        self.running[turn_id] += 1
        data |= {"turn_id": turn_id, "seq": self.running[turn_id]}
        self.member.feed(json.dumps({"type": kind, "data": data}).encode())


@attrs.define(eq=False)
class Session:
    """A session, with the turn it has started and what it has heard of that."""

    name: str
    line: Line
    turn_id: str | None = None
    heard: list[AgentEvent] = attrs.Factory(list)

    @property
    def ended(self) -> bool:
        return self.turn_id is None or any(isinstance(event, ENDS) for event in self.heard)


class Turns(RuleBasedStateMachine):
    """Sessions that want turns, and agents that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.pool = self.make()
        self.reported = 0
        self.pool.on_capacity = self.report
        self.sessions = [self.session(f"s{number}") for number in range(4)]
        self.there: list[Far] = []
        self.away: list[Far] = []
        self.made = 0

    def make(self) -> Pool:
        return Pool(reattach=REATTACH, clock=self.clock)

    def report(self) -> None:
        self.reported = self.pool.capacity or 0

    def session(self, name: str) -> Session:
        heard: list[AgentEvent] = []
        return Session(name, self.pool.open(Opening(name), heard.append), heard=heard)

    # -- what happens ------------------------------------------------------------------------------

    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        session = self.sessions[pick % len(self.sessions)]
        if session.ended:
            self.made += 1
            session.turn_id = f"t{self.made}"
            session.heard.clear()
            session.line.start_turn(Prompt(session.name, session.turn_id, b'"x"'))

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        session = self.sessions[pick % len(self.sessions)]
        session.line.cancel_turn(session.turn_id or "none")

    @rule(pick=PICK)
    def cut(self, pick: int) -> None:
        index = pick % len(self.sessions)
        with pytest.raises(StopIteration):  # it waits for nothing, so that it needs no loop
            self.sessions[index].line.close().send(None)
        self.sessions[index] = self.session(self.sessions[index].name)

    @rule(capacity=st.integers(1, 2))
    def join(self, capacity: int) -> None:
        self.made += 1
        self._join(Far(f"a{self.made}", {}), capacity)

    @precondition(lambda self: self.away)
    @rule(pick=PICK, forget=st.booleans(), capacity=st.integers(1, 2))
    def come_back(self, pick: int, forget: bool, capacity: int) -> None:
        old = self.away.pop(pick % len(self.away))
        self._join(Far(old.name, {} if forget else old.running), capacity)

    def _join(self, far: Far, capacity: int) -> None:
        turns = tuple(Running(turn_id, seq) for turn_id, seq in far.running.items())
        # What it is told before it is welcomed would be lost on it; nothing is.
        far.member = self.pool.join(Hello("coder", "", capacity, far.name, turns), far)
        self.there.append(far)

    @precondition(lambda self: self.there)
    @rule(pick=PICK, clean=st.booleans())
    def leave(self, pick: int, clean: bool) -> None:
        far = self.there.pop(pick % len(self.there))
        self.pool.leave(far.member, "it broke", clean=clean)
        if not clean:
            self.away.append(far)

    @precondition(lambda self: any(far.running for far in self.there))
    @rule(pick=PICK, kind=st.sampled_from(["turn_accepted", "delta", "turn_end", "turn_error", "weather"]))
    def say(self, pick: int, kind: str) -> None:
        having = [far for far in self.there if far.running]
        far = having[pick % len(having)]
        turn_id = list(far.running)[pick % len(far.running)]
        far.say(kind, turn_id, **({"text": "x"} if kind == "delta" else {}))
        if kind in {"turn_end", "turn_error"}:
            del far.running[turn_id]

    @rule(seconds=st.sampled_from([1.0, LET_GO - 1, REATTACH]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- what has to be true -------------------------------------------------------------------------

    @invariant()
    def no_turn_ends_twice(self) -> None:
        for session in self.sessions:
            assert sum(isinstance(event, ENDS) for event in session.heard) <= 1, session

    @invariant()
    def the_capacity_is_known(self) -> None:
        assert self.reported == self.pool.capacity

    @invariant()
    def nobody_has_two_turns_of_a_session_but_those_it_came_with(self) -> None:
        for member in self.pool.members:
            live = [job.session_id for job in member.jobs.values() if not job.over]
            assert len(live) == len(set(live))

    def teardown(self) -> None:
        """Once everybody is gone for good, and no time is left, no turn is without an end but those nobody had."""
        for far in self.there:
            self.pool.leave(far.member, "it broke")
        self.clock.advance(REATTACH + LET_GO)
        self.no_turn_ends_twice()
        late = Far("late", {})
        late.member = self.pool.join(Hello("coder", "", 100, "late"), late)
        for session in self.sessions:
            assert session.ended or session.turn_id in late.running, session
        assert self.clock.waiting == 0
        assert self.pool.capacity == 100


BOUNDS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_turn_ends_once() -> None:
    run_state_machine_as_test(Turns, settings=BOUNDS)


class Forgetful(Pool):
    """A pool with a fault: turns whose agent left wait for ever."""

    def leave(self, member: Member, reason: str, *, clean: bool = False) -> None:
        super().leave(member, reason, clean=clean)
        for job in self._stalled:
            self._stalled.remove(job)


class Hasty(Pool):
    """A pool with a fault: what ends with an agent's word ends twice."""

    def settled(self, member: Member, job: Any) -> None:
        super().settled(member, job)
        job.emit(TurnSettled(job.turn_id, "end_turn"))


def found(pool: type[Pool]) -> bool:
    """Tell whether the model finds the fault of a pool."""

    class Planted(Turns):
        def make(self) -> Pool:
            return pool(reattach=REATTACH, clock=self.clock)

    try:
        run_state_machine_as_test(Planted, settings=BOUNDS)
    except AssertionError:
        return True
    return False


def test_a_planted_loss_and_a_planted_double_are_found() -> None:
    assert found(Forgetful)
    assert found(Hasty)
